//! Two ends of a channel that follow a script.

use crate::script::Script;
use crate::world::World;

pub(crate) fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let mut world = World::new(script.byte() % 2 == 1);
    match world.run(&mut script) {
        Ok(()) => world.conclude(),
        Err(_over) => world.check_streams(false),
    }
}
