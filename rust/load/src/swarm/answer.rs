//! Reads one HTTP/1.1 answer from bytes; opens nothing and waits for nothing.

/// Most bytes of an answer's head, of its chunk heads together with what is buffered, and of its
/// trailers.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most bytes of an answer's body.
const MAX_BODY_BYTES: usize = 64 * 1024;
const MAX_FIELDS: usize = 64;

/// A complete answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Answer {
    /// The final status.
    pub(super) status: u16,
    /// The value of `Proxy-Status`, where something on the way made this answer.
    pub(super) proxy_status: Option<String>,
    /// The decoded body.
    pub(super) body: Vec<u8>,
    /// The connection may carry another request.
    pub(super) keep_alive: bool,
}

/// Bytes that are not a well-formed answer within our limits.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("malformed answer head: {0}")]
    Head(httparse::Error),
    #[error("answer head larger than {MAX_HEAD_BYTES} bytes")]
    HeadTooLarge,
    #[error("answer body larger than {MAX_BODY_BYTES} bytes")]
    BodyTooLarge,
    #[error("answer with contradicting or malformed framing fields")]
    Framing,
    #[error("malformed chunk in the answer body")]
    Chunk,
    #[error("unexpected status {0} before the answer")]
    Interim(u16),
    #[error("bytes after the end of the answer")]
    Excess,
    #[error("connection closed before the answer")]
    NoAnswer,
    #[error("connection closed inside the answer")]
    Truncated,
}

/// Takes the bytes of one answer as they arrive. Holds no memory before the first byte.
#[derive(Debug, Default)]
pub(super) struct AnswerReader {
    /// Bytes received and not yet understood.
    buffer: Vec<u8>,
    part: Part,
}

#[derive(Debug, Default)]
enum Part {
    #[default]
    Head,
    Length(Answer, usize),
    UntilEnd(Answer),
    ChunkHead(Answer),
    ChunkData(Answer, usize),
    ChunkEnd(Answer),
    Trailers(Answer),
}

/// What one step through the buffer led to.
enum Step {
    Again(Part),
    Wait(Part),
    Done(Answer),
}

impl AnswerReader {
    /// Takes the next bytes; returns the answer once it is complete, after which the reader must
    /// not be used again.
    ///
    /// # Errors
    ///
    /// [`AnswerError`] if the bytes are no answer, or if they go on after its end.
    pub(super) fn handle_input(&mut self, input: &[u8]) -> Result<Option<Answer>, AnswerError> {
        self.buffer.extend_from_slice(input);
        let mut part = std::mem::take(&mut self.part);
        loop {
            match self.step(part)? {
                Step::Again(next) => part = next,
                Step::Wait(next) => {
                    self.part = next;
                    return Ok(None);
                }
                Step::Done(answer) if self.buffer.is_empty() => return Ok(Some(answer)),
                Step::Done(_) => return Err(AnswerError::Excess),
            }
        }
    }

    /// The peer sends nothing more: the answer, if its end was left to the end of the connection
    /// and that end is `clean`, so that nothing can be missing.
    ///
    /// # Errors
    ///
    /// [`AnswerError::NoAnswer`] or [`AnswerError::Truncated`].
    pub(super) fn handle_end(self, clean: bool) -> Result<Answer, AnswerError> {
        match self.part {
            Part::UntilEnd(answer) if clean => Ok(answer),
            Part::Head if self.buffer.is_empty() => Err(AnswerError::NoAnswer),
            _ => Err(AnswerError::Truncated),
        }
    }

    fn step(&mut self, part: Part) -> Result<Step, AnswerError> {
        match part {
            Part::Head => self.step_head(),
            Part::Length(mut answer, left_bytes) => {
                let left_bytes = left_bytes - self.take_body(&mut answer, left_bytes)?;
                Ok(if left_bytes == 0 {
                    Step::Done(answer)
                } else {
                    Step::Wait(Part::Length(answer, left_bytes))
                })
            }
            Part::UntilEnd(mut answer) => {
                self.take_body(&mut answer, usize::MAX)?;
                Ok(Step::Wait(Part::UntilEnd(answer)))
            }
            Part::ChunkHead(answer) => self.step_chunk_head(answer),
            Part::ChunkData(mut answer, left_bytes) => {
                let left_bytes = left_bytes - self.take_body(&mut answer, left_bytes)?;
                Ok(if left_bytes == 0 {
                    Step::Again(Part::ChunkEnd(answer))
                } else {
                    Step::Wait(Part::ChunkData(answer, left_bytes))
                })
            }
            Part::ChunkEnd(answer) => {
                if self.buffer.len() < 2 {
                    return Ok(Step::Wait(Part::ChunkEnd(answer)));
                }
                if !self.buffer.starts_with(b"\r\n") {
                    return Err(AnswerError::Chunk);
                }
                self.buffer.drain(..2);
                Ok(Step::Again(Part::ChunkHead(answer)))
            }
            Part::Trailers(answer) => self.step_trailers(answer),
        }
    }

    fn step_head(&mut self) -> Result<Step, AnswerError> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let length = match head.parse(&self.buffer).map_err(AnswerError::Head)? {
            httparse::Status::Complete(length) if length <= MAX_HEAD_BYTES => length,
            httparse::Status::Partial if self.buffer.len() <= MAX_HEAD_BYTES => {
                return Ok(Step::Wait(Part::Head));
            }
            _ => return Err(AnswerError::HeadTooLarge),
        };
        let next = body_of(&head)?;
        self.buffer.drain(..length);
        Ok(next)
    }

    fn step_chunk_head(&mut self, answer: Answer) -> Result<Step, AnswerError> {
        match httparse::parse_chunk_size(&self.buffer) {
            Ok(httparse::Status::Complete((length, size))) => {
                self.buffer.drain(..length);
                let size = usize::try_from(size).map_err(|_| AnswerError::BodyTooLarge)?;
                Ok(Step::Again(if size == 0 {
                    Part::Trailers(answer)
                } else {
                    Part::ChunkData(answer, size)
                }))
            }
            Ok(httparse::Status::Partial) if self.buffer.len() <= MAX_HEAD_BYTES => {
                Ok(Step::Wait(Part::ChunkHead(answer)))
            }
            _ => Err(AnswerError::Chunk),
        }
    }

    fn step_trailers(&mut self, answer: Answer) -> Result<Step, AnswerError> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        match httparse::parse_headers(&self.buffer, &mut fields).map_err(AnswerError::Head)? {
            httparse::Status::Complete((length, _)) => {
                self.buffer.drain(..length);
                Ok(Step::Done(answer))
            }
            httparse::Status::Partial if self.buffer.len() <= MAX_HEAD_BYTES => {
                Ok(Step::Wait(Part::Trailers(answer)))
            }
            httparse::Status::Partial => Err(AnswerError::HeadTooLarge),
        }
    }

    /// Moves up to `most` buffered bytes to the body and says how many.
    fn take_body(&mut self, answer: &mut Answer, most: usize) -> Result<usize, AnswerError> {
        let taken = most.min(self.buffer.len());
        if answer.body.len() + taken > MAX_BODY_BYTES {
            return Err(AnswerError::BodyTooLarge);
        }
        answer.body.extend(self.buffer.drain(..taken));
        Ok(taken)
    }
}

/// Reads status and framing out of a complete head.
fn body_of(head: &httparse::Response<'_, '_>) -> Result<Step, AnswerError> {
    let status = head.code.unwrap_or_default();
    if (100..200).contains(&status) {
        return match status {
            101 => Err(AnswerError::Interim(status)),
            _ => Ok(Step::Again(Part::Head)),
        };
    }
    let mut answer = Answer {
        status,
        proxy_status: None,
        body: Vec::new(),
        keep_alive: head.version == Some(1),
    };
    let mut length_bytes = None;
    let mut chunked = false;
    for field in &*head.headers {
        let value = String::from_utf8_lossy(field.value);
        let value = value.trim();
        if field.name.eq_ignore_ascii_case("content-length") {
            let all_digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            if !all_digits || length_bytes.is_some() {
                return Err(AnswerError::Framing);
            }
            length_bytes = Some(value.parse().map_err(|_| AnswerError::BodyTooLarge)?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case("chunked") {
                return Err(AnswerError::Framing);
            }
            chunked = true;
        } else if field.name.eq_ignore_ascii_case("connection") {
            let close = value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close"));
            answer.keep_alive &= !close;
        } else if field.name.eq_ignore_ascii_case("proxy-status") {
            answer.proxy_status = Some(value.to_owned());
        }
    }
    if matches!(status, 204 | 304) {
        return Ok(Step::Done(answer));
    }
    match (chunked, length_bytes) {
        (true, Some(_)) => Err(AnswerError::Framing),
        (true, None) => Ok(Step::Again(Part::ChunkHead(answer))),
        (false, Some(length)) if length > MAX_BODY_BYTES => Err(AnswerError::BodyTooLarge),
        (false, Some(length)) => Ok(Step::Again(Part::Length(answer, length))),
        (false, None) => {
            answer.keep_alive = false;
            Ok(Step::Again(Part::UntilEnd(answer)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` whole, then byte by byte, and checks that both give the same.
    fn read(wire: &[u8]) -> Result<Answer, AnswerError> {
        let whole = read_in_pieces(wire, wire.len().max(1));
        assert_eq!(read_in_pieces(wire, 1), whole, "whole and byte by byte differ");
        whole
    }

    fn read_in_pieces(wire: &[u8], piece_bytes: usize) -> Result<Answer, AnswerError> {
        let mut reader = AnswerReader::default();
        let mut answer = None;
        for piece in wire.chunks(piece_bytes) {
            if answer.is_some() {
                return Err(AnswerError::Excess);
            }
            answer = reader.handle_input(piece)?;
        }
        answer.map_or_else(|| reader.handle_end(true), Ok)
    }

    #[test]
    fn an_answer_with_a_length_is_read() {
        let answer = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
        assert!(answer.keep_alive);
    }

    #[test]
    fn a_chunked_answer_with_extensions_and_trailers_is_read() {
        let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nDigest: x\r\n\r\n";
        assert_eq!(read(wire).unwrap().body, b"hello!");
    }

    #[test]
    fn interim_answers_are_skipped_and_a_204_has_no_body() {
        let answer = read(b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert_eq!((answer.status, answer.body.len()), (204, 0));
    }

    #[test]
    fn an_answer_without_framing_ends_with_the_connection() {
        let answer = read(b"HTTP/1.1 503 No\r\nProxy-Status: gw; error=x\r\n\r\nsorry").unwrap();
        assert_eq!(answer.body, b"sorry");
        assert_eq!(answer.proxy_status.as_deref(), Some("gw; error=x"));
        assert!(!answer.keep_alive);
    }

    #[test]
    fn an_answer_without_framing_is_not_trusted_after_an_unclean_end() {
        let mut reader = AnswerReader::default();
        assert_eq!(reader.handle_input(b"HTTP/1.1 200 OK\r\n\r\nhalf"), Ok(None));
        assert_eq!(reader.handle_end(false), Err(AnswerError::Truncated));
    }

    #[test]
    fn connection_close_is_honoured() {
        let wire = b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n";
        assert!(!read(wire).unwrap().keep_alive);
    }

    #[test]
    fn ambiguous_framing_is_an_error() {
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: +1\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
        ] {
            let wire = format!("HTTP/1.1 200 OK\r\n{fields}\r\nx");
            assert_eq!(read(wire.as_bytes()), Err(AnswerError::Framing), "{fields}");
        }
    }

    #[test]
    fn bytes_after_the_answer_are_an_error() {
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(read(wire), Err(AnswerError::Excess));
    }

    #[test]
    fn a_broken_off_answer_is_told_from_none_at_all() {
        assert_eq!(read(b""), Err(AnswerError::NoAnswer));
        assert_eq!(read(b"HTTP/1.1 2"), Err(AnswerError::Truncated));
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab";
        assert_eq!(read(wire), Err(AnswerError::Truncated));
        let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
        assert_eq!(read(wire), Err(AnswerError::Truncated));
    }

    #[test]
    fn heads_and_bodies_are_bounded() {
        let head = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(MAX_HEAD_BYTES));
        assert_eq!(read(head.as_bytes()), Err(AnswerError::HeadTooLarge));
        let length = b"HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n";
        assert_eq!(read(length), Err(AnswerError::BodyTooLarge));
        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.resize(endless.len() + MAX_BODY_BYTES + 1, b'x');
        assert_eq!(read(&endless), Err(AnswerError::BodyTooLarge));
        let chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n";
        assert_eq!(read(chunk), Err(AnswerError::Chunk));
    }
}
