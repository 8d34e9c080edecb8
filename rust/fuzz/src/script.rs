//! Decisions read from an input.

/// The bytes of an input that have not decided anything yet.
#[derive(Clone, Debug)]
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte; 0 behind the end.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        byte
    }

    /// The next `length` bytes, or what there is, as a script of its own.
    pub(crate) fn part(&mut self, length: usize) -> Self {
        let (part, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        Self(part)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}
