//! The fuzzer of the target that the environment variable `FUZZ_TARGET` names.

#![no_main]

use std::sync::LazyLock;

use cmgmux_fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names the target");
    cmgmux_fuzz::target(&name).unwrap_or_else(|| panic!("there is no target {name}"))
});

fuzz_target!(|data: &[u8]| TARGET(data));
