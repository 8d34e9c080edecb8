//! Lookup of the mapping that a target belongs to.

use std::cmp::Ordering;

use super::Route;
use crate::target::Target;

/// Mappings by their external prefix, each with a value of the user's: a site and counters at the
/// gateway, a pool at the connection point.
#[derive(Clone, Debug)]
pub struct MappingTable<T> {
    /// In the order of [`compare`], no two equal.
    entries: Vec<Entry<T>>,
    /// Segments of the longest prefix.
    max_segments: usize,
}

/// A mapping in a table.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// The mapping.
    pub route: Route,
    /// What the table's user keeps with it.
    pub value: T,
}

impl<T> MappingTable<T> {
    /// Makes a table of all `routes`.
    ///
    /// # Errors
    ///
    /// [`DuplicateExternal`] if two prefixes differ at most in letter case.
    pub fn build(routes: impl IntoIterator<Item = (Route, T)>) -> Result<Self, DuplicateExternal> {
        let mut numbered: Vec<_> =
            routes.into_iter().map(|(route, value)| Entry { route, value }).enumerate().collect();
        // Stable, so that of two equal prefixes the earlier one stays first.
        numbered.sort_by(|(_, a), (_, b)| compare(a.route.external(), b.route.external()));
        for pair in numbered.windows(2) {
            let [(first, a), (second, b)] = pair else {
                continue;
            };
            if compare(a.route.external(), b.route.external()).is_eq() {
                let external = b.route.external().to_owned();
                return Err(DuplicateExternal { first: *first, second: *second, external });
            }
        }
        let entries: Vec<_> = numbered.into_iter().map(|(_, entry)| entry).collect();
        let segments = |entry: &Entry<T>| entry.route.external().matches('/').count();
        let max_segments = entries.iter().map(segments).max().unwrap_or(0);
        Ok(Self { entries, max_segments })
    }

    /// The mapping with the longest prefix of the target's path. Allocates nothing.
    #[must_use]
    pub fn lookup(&self, target: &Target) -> Option<&Entry<T>> {
        let path = target.path();
        let slashes = path.bytes().enumerate().filter(|&(_, byte)| byte == b'/');
        let ends = slashes.map(|(at, _)| at).chain([path.len()]).take(self.max_segments + 1);
        ends.filter_map(|end| self.find(&path[..end])).last()
    }

    /// All mappings, in no order that means something.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.entries.iter()
    }

    fn find(&self, prefix: &str) -> Option<&Entry<T>> {
        let search = self.entries.binary_search_by(|entry| compare(entry.route.external(), prefix));
        search.ok().map(|index| &self.entries[index])
    }
}

impl<T> Default for MappingTable<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), max_segments: 0 }
    }
}

/// Two mappings of one table have the same external prefix.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("mappings {first} and {second} have the same external prefix {external:?}")]
pub struct DuplicateExternal {
    /// The position of the earlier mapping among those given.
    pub first: usize,
    /// The position of the later one.
    pub second: usize,
    /// The prefix.
    pub external: String,
}

/// Orders prefixes without regard to letter case: by length, then from the back, where prefixes of
/// one gateway differ first.
fn compare(a: &str, b: &str) -> Ordering {
    let folded = |byte: u8| byte.to_ascii_lowercase();
    let by_bytes = || a.bytes().rev().map(folded).cmp(b.bytes().rev().map(folded));
    a.len().cmp(&b.len()).then_with(by_bytes)
}

#[cfg(test)]
mod tests {
    use super::super::Mapping;
    use super::*;

    fn table(pairs: &[(&str, &'static str)]) -> MappingTable<&'static str> {
        let routes = pairs.iter().map(|&(external, internal)| {
            let json = serde_json::json!({"external": external, "internal": internal});
            let mapping: Mapping = serde_json::from_value(json).expect("a mapping");
            (mapping.compile().expect("valid"), internal)
        });
        MappingTable::build(routes).expect("no duplicates")
    }

    fn rewritten(table: &MappingTable<&'static str>, target: &str) -> Option<String> {
        let target = Target::parse(target).expect("a target");
        let entry = table.lookup(&target)?;
        Some(entry.route.rewrite(&target).expect("matches").to_string())
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins() {
        let table = table(&[
            ("/a", "http://short"),
            ("/A/b/c", "http://long:8530/base/"),
            ("/a/bb", "http://other/x"),
        ]);
        for (target, expected) in [
            ("/a", Some("http://short/")),
            ("/a?q=%2e/../x", Some("http://short/?q=%2e/../x")),
            ("/a/", Some("http://short/")),
            ("/A/B", Some("http://short/B")),
            ("/a/b/cc", Some("http://short/b/cc")),
            ("/a/B/c", Some("http://long:8530/base")),
            ("/a/b/C/", Some("http://long:8530/base/")),
            ("/a/b/c?Q", Some("http://long:8530/base?Q")),
            ("/a/b/c/Path%2Dx/%7bY%7d?q", Some("http://long:8530/base/Path-x/%7BY%7D?q")),
            ("/a/BB/Z", Some("http://other/x/Z")),
            ("/a/bb/../b/c/z", Some("http://long:8530/base/z")),
            ("/", None),
            ("/ab", None),
            ("//a", None),
            ("/b/a", None),
        ] {
            assert_eq!(rewritten(&table, target).as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn the_root_takes_what_nothing_else_does() {
        let table = table(&[("/", "http://rest/r"), ("/a", "http://a")]);
        assert_eq!(rewritten(&table, "/a/x").as_deref(), Some("http://a/x"));
        assert_eq!(rewritten(&table, "/b/x").as_deref(), Some("http://rest/r/b/x"));
        assert_eq!(rewritten(&table, "/").as_deref(), Some("http://rest/r/"));
        let root = self::table(&[("/", "http://rest")]);
        assert_eq!(rewritten(&root, "/?q").as_deref(), Some("http://rest/?q"));
    }

    #[test]
    fn an_empty_table_matches_nothing() {
        let target = Target::parse("/").expect("a target");
        assert!(MappingTable::<()>::default().lookup(&target).is_none());
    }

    #[test]
    fn a_target_elsewhere_is_not_rewritten() {
        let table = table(&[("/a", "http://a")]);
        let route = &table.iter().next().expect("one entry").route;
        assert!(route.rewrite(&Target::parse("/ab").expect("a target")).is_err());
    }

    #[test]
    fn every_byte_that_a_target_may_hold_can_be_rewritten() {
        let table = table(&[("/a", "http://a")]);
        for byte in 0..=127_u8 {
            let char = char::from(byte);
            for raw in [format!("/a/{char}x"), format!("/a/x?{char}"), format!("/a/%{byte:02x}")] {
                let Ok(target) = Target::parse(&raw) else {
                    continue;
                };
                let route = &table.lookup(&target).expect("below /a").route;
                let uri = route.rewrite(&target).expect("carried");
                let sent = uri.path_and_query().expect("a path").as_str();
                assert_eq!(sent, &target.as_str()[2..], "{raw:?}");
            }
        }
    }

    #[test]
    fn prefixes_that_differ_in_letter_case_are_duplicates() {
        let route = |external: &str| {
            let json = serde_json::json!({"external": external, "internal": "http://h"});
            let mapping: Mapping = serde_json::from_value(json).expect("a mapping");
            (mapping.compile().expect("valid"), ())
        };
        let error = MappingTable::build([route("/x"), route("/A/b"), route("/y"), route("/a/B/")])
            .expect_err("a duplicate");
        assert_eq!((error.first, error.second, error.external.as_str()), (1, 3, "/a/B"));
    }
}
