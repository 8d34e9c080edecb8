//! Properties of canonical targets and of the way through a mapping.

use cmgmux_exchange::mapping::{Mapping, MappingTable};
use cmgmux_exchange::target::Target;
use proptest::prelude::*;

/// Texts that are dense in what canonicalisation treats specially.
fn raw_target() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/".to_owned()),
        Just(".".to_owned()),
        Just("..".to_owned()),
        Just("%2e".to_owned()),
        Just("%2E%2e".to_owned()),
        Just("%25".to_owned()),
        Just("?".to_owned()),
        Just("//".to_owned()),
        "%[0-9a-fA-F]{2}",
        "[a-zA-Z0-9{}~;=&]{1,4}",
        "\\PC",
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #[test]
    fn the_canonical_form_is_its_own_canonical_form(raw in raw_target()) {
        if let Ok(target) = Target::parse(&raw) {
            prop_assert_eq!(Target::parse(target.as_str()), Ok(target.clone()));
            let query = raw.split_once('?').map(|(_, query)| query);
            prop_assert_eq!(target.query(), query);
        }
    }

    #[test]
    fn a_canonical_path_has_nothing_that_readers_understand_differently(raw in raw_target()) {
        if let Ok(target) = Target::parse(&raw) {
            let path = target.path();
            prop_assert!(path.starts_with('/') && path.is_ascii());
            prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
            let upper = path.to_ascii_uppercase();
            for escape in ["%2F", "%5C", "%2E", "%00", "%41"] {
                prop_assert!(!upper.contains(escape), "{}", path);
            }
            prop_assert!(!path.contains(['\\', '#', '?', ' ']));
        }
    }

    #[test]
    fn any_text_is_parsed_without_panic(raw in "\\PC*") {
        let _ = Target::parse(&raw);
        let _ = Target::parse_request(&raw);
    }

    #[test]
    fn whatever_matches_stays_below_the_internal_url(
        raw in raw_target(),
        prefix in "(/[ab]{1,2}){0,3}/?",
    ) {
        let external = if prefix.is_empty() { "/".to_owned() } else { prefix };
        let json = serde_json::json!({"external": external, "internal": "http://mp:80/base"});
        let mapping: Mapping = serde_json::from_value(json).expect("a mapping");
        let table = MappingTable::build([(mapping.compile().expect("valid"), ())])
            .expect("no duplicates");
        let Ok(target) = Target::parse(&format!("{}{raw}", external.trim_end_matches('/'))) else {
            return Ok(());
        };
        if let Some(entry) = table.lookup(&target) {
            let uri = entry.route.rewrite(&target).expect("what matches is rewritten");
            prop_assert_eq!(uri.authority().map(http::uri::Authority::as_str), Some("mp:80"));
            prop_assert!(uri.path() == "/base" || uri.path().starts_with("/base/"));
            prop_assert_eq!(uri.query(), target.query());
        }
    }

    #[test]
    fn lookup_finds_what_a_search_through_all_mappings_finds(
        prefixes in prop::collection::btree_set("(/[ab]{1,2}){1,4}", 1..12),
        path in "(/[abAB]{1,2}){1,6}",
    ) {
        let table = MappingTable::build(prefixes.iter().map(|prefix| {
            let json = serde_json::json!({"external": prefix, "internal": "http://mp"});
            let mapping: Mapping = serde_json::from_value(json).expect("a mapping");
            (mapping.compile().expect("valid"), ())
        })).expect("no duplicates");
        let target = Target::parse(&path).expect("a path");
        let found = table.lookup(&target).map(|entry| entry.route.external().to_owned());
        let lower = format!("{}/", path.to_ascii_lowercase());
        let expected = prefixes
            .iter()
            .filter(|prefix| lower.starts_with(&format!("{prefix}/")))
            .max_by_key(|prefix| prefix.len());
        prop_assert_eq!(found.as_ref(), expected);
    }
}
