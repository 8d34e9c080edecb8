//! Finds the end of a block of lines (a head, a trailer section) however its bytes arrive.

/// Limits of one block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockLimits {
    /// Bytes of the first line, its CR LF included.
    pub(crate) first_line_bytes: usize,
    /// Bytes of the whole block, the empty line at its end included.
    pub(crate) block_bytes: usize,
    /// Lines before the first field: 1 for a head, 0 for a trailer section.
    pub(crate) start_lines: usize,
    /// Field lines.
    pub(crate) fields: usize,
}

/// Why a block is refused before it is parsed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BlockError {
    FirstLineTooLong,
    TooLong,
    TooManyFields,
    /// A line ends in LF without CR.
    LineEnding,
}

/// Looks at each byte once. The verdict on a block does not depend on how it was cut into pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BlockScanner {
    scanned: usize,
    line_start: usize,
    lines: usize,
}

impl BlockScanner {
    /// Whether no line has ended so far.
    pub(crate) fn in_first_line(&self) -> bool {
        self.lines == 0
    }

    /// Continues the scan of `input`, which begins with the bytes of the calls before. Gives the
    /// length of the block, its empty line included, once that is there.
    pub(crate) fn scan(
        &mut self,
        input: &[u8],
        limits: BlockLimits,
    ) -> Result<Option<usize>, BlockError> {
        loop {
            let next = input[self.scanned..].iter().position(|&byte| byte == b'\n');
            let end = next.map_or(input.len(), |offset| self.scanned + offset);
            if self.lines == 0 && end >= limits.first_line_bytes {
                return Err(BlockError::FirstLineTooLong);
            }
            if end >= limits.block_bytes {
                return Err(BlockError::TooLong);
            }
            if next.is_none() {
                self.scanned = end;
                return Ok(None);
            }
            if end == self.line_start || input[end - 1] != b'\r' {
                return Err(BlockError::LineEnding);
            }
            let empty = end - 1 == self.line_start;
            self.scanned = end + 1;
            self.line_start = end + 1;
            if empty {
                return Ok(Some(end + 1));
            }
            self.lines += 1;
            if self.lines > limits.start_lines + limits.fields {
                return Err(BlockError::TooManyFields);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BlockLimits =
        BlockLimits { first_line_bytes: 8, block_bytes: 16, start_lines: 1, fields: 2 };

    fn whole(input: &[u8]) -> Result<Option<usize>, BlockError> {
        BlockScanner::default().scan(input, LIMITS)
    }

    #[test]
    fn the_block_ends_with_its_empty_line() {
        assert_eq!(whole(b"a\r\nb\r\n\r\nrest"), Ok(Some(8)));
        assert_eq!(whole(b"\r\nrest"), Ok(Some(2)));
        assert_eq!(whole(b"a\r\nb\r\n\r"), Ok(None));
    }

    #[test]
    fn limits_and_line_ends_are_exact() {
        assert_eq!(whole(b"123456\r\n\r\n"), Ok(Some(10)));
        assert_eq!(whole(b"1234567\r\n\r\n"), Err(BlockError::FirstLineTooLong));
        assert_eq!(whole(b"a\r\n123456789\r\n\r\n"), Ok(Some(16)));
        assert_eq!(whole(b"a\r\n1234567890\r\n\r\n"), Err(BlockError::TooLong));
        assert_eq!(whole(b"a\r\nb\r\nc\r\nd\r\n\r\n"), Err(BlockError::TooManyFields));
        assert_eq!(whole(b"a\n"), Err(BlockError::LineEnding));
        assert_eq!(whole(b"a\r\n\n"), Err(BlockError::LineEnding));
    }

    #[test]
    fn pieces_give_the_same_verdict_as_the_whole() {
        let blocks: [&[u8]; 6] = [
            b"a\r\nb\r\n\r\n",
            b"1234567\r\n\r\n",
            b"a\r\n1234567890\r\n\r\n",
            b"a\r\nb\r\nc\r\nd\r\n\r\n",
            b"a\r\nb\n\r\n",
            b"12345678901234567890",
        ];
        for block in blocks {
            let mut scanner = BlockScanner::default();
            let pieces = (1..=block.len())
                .map(|end| scanner.scan(&block[..end], LIMITS))
                .find(|verdict| *verdict != Ok(None))
                .unwrap_or(Ok(None));
            assert_eq!(pieces, whole(block), "{block:?}");
        }
    }
}
