//! The few messages of the Postgres protocol (version 3.0) that a proxy reads and writes itself.

use std::io::{self, Error, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// As the server has it: `MAX_STARTUP_PACKET_LENGTH`.
const LONGEST_STARTUP: usize = 10_000;
/// A token with a long session token is 3.3 kB; RDS itself stops at 64 KiB.
const LONGEST_PASSWORD: usize = 64 * 1024;

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
const VERSION_3_0: u32 = 196_608;

/// What a client may open with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Ssl,
    GssEncryption,
    /// The whole packet, to be passed on as it is.
    Cancel(Vec<u8>),
    Startup(Startup),
    /// Another protocol version, as `major.minor`.
    Version(u32, u32),
}

/// A StartupMessage, kept byte for byte.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Startup {
    pub(crate) packet: Vec<u8>,
    pub(crate) parameters: Vec<(String, String)>,
}

impl Startup {
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Reads exactly one opening packet and not a byte more: what follows an SSLRequest belongs to TLS.
pub(crate) async fn read_opening(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Opening> {
    let length = stream.read_u32().await?;
    let body = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(4);
    if !(4..=LONGEST_STARTUP).contains(&body) {
        return Err(malformed("length of the startup packet"));
    }
    let mut packet = length.to_be_bytes().to_vec();
    packet.resize(body + 4, 0);
    stream.read_exact(packet.get_mut(4..).unwrap_or_default()).await?;
    let code = packet.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes).unwrap_or_default();
    match code {
        SSL_REQUEST if body == 4 => Ok(Opening::Ssl),
        GSSENC_REQUEST if body == 4 => Ok(Opening::GssEncryption),
        CANCEL_REQUEST => Ok(Opening::Cancel(packet)),
        VERSION_3_0 => {
            let parameters = parameters(packet.get(8..).unwrap_or_default())?;
            Ok(Opening::Startup(Startup { packet, parameters }))
        }
        other => Ok(Opening::Version(other >> 16, other & 0xffff)),
    }
}

fn parameters(mut bytes: &[u8]) -> io::Result<Vec<(String, String)>> {
    let mut next = || {
        let end = bytes.iter().position(|b| *b == 0).ok_or_else(|| malformed("startup parameter"))?;
        let (text, rest) = bytes.split_at(end);
        bytes = rest.get(1..).unwrap_or_default();
        String::from_utf8(text.to_vec()).map_err(|_| malformed("startup parameter"))
    };
    let mut found = Vec::new();
    loop {
        let name = next()?;
        if name.is_empty() {
            break;
        }
        if found.iter().any(|(known, _)| *known == name) {
            return Err(malformed("startup parameter given twice"));
        }
        found.push((name, next()?));
    }
    if bytes.is_empty() { Ok(found) } else { Err(malformed("bytes after the startup parameters")) }
}

/// Asks for the password in clear, inside TLS, and reads it.
pub(crate) async fn ask_password(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<String> {
    stream.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).await?;
    stream.flush().await?;
    let kind = stream.read_u8().await?;
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if kind != b'p' || !(5..=LONGEST_PASSWORD).contains(&length) {
        return Err(malformed("password message"));
    }
    let mut text = vec![0; length - 4];
    stream.read_exact(&mut text).await?;
    if text.pop() != Some(0) || text.contains(&0) {
        return Err(malformed("password message"));
    }
    String::from_utf8(text).map_err(|_| malformed("password message"))
}

/// Sends a FATAL error and ends the stream.
pub(crate) async fn fatal(stream: &mut (impl AsyncWrite + Unpin), sqlstate: &str, text: &str) -> io::Result<()> {
    let mut body = Vec::new();
    for (field, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', sqlstate), (b'M', text)] {
        body.push(field);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut message = vec![b'E'];
    message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(&body);
    stream.write_all(&message).await?;
    stream.flush().await?;
    stream.shutdown().await
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("malformed {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(body.len() + 8).expect("short").to_be_bytes().to_vec();
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[tokio::test]
    async fn openings_are_told_apart_and_nothing_after_them_is_read() {
        let mut bytes = packet(SSL_REQUEST, b"");
        bytes.extend_from_slice(b"rest");
        let mut stream = bytes.as_slice();
        assert_eq!(read_opening(&mut stream).await.expect("read"), Opening::Ssl);
        assert_eq!(stream, b"rest");
        for (bytes, expected) in [
            (packet(GSSENC_REQUEST, b""), Opening::GssEncryption),
            (packet(196_610, b"user\0a\0\0"), Opening::Version(3, 2)),
            (packet(131_072, b""), Opening::Version(2, 0)),
        ] {
            assert_eq!(read_opening(&mut bytes.as_slice()).await.expect("read"), expected);
        }
    }

    #[tokio::test]
    async fn a_startup_message_is_kept_byte_for_byte() {
        let bytes = packet(VERSION_3_0, b"user\0token\0database\0portcullis\0\0");
        let Ok(Opening::Startup(startup)) = read_opening(&mut bytes.as_slice()).await else {
            panic!("a startup message")
        };
        assert_eq!(startup.packet, bytes);
        assert_eq!(startup.parameter("user"), Some("token"));
        assert_eq!(startup.parameter("replication"), None);
    }

    #[tokio::test]
    async fn malformed_openings_are_refused() {
        for bytes in [
            vec![],
            vec![0, 0, 0, 4],
            vec![0, 0, 0, 7, 0, 0, 0],
            vec![0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0],
            vec![0x16, 3, 1, 2, 0, 1, 0, 1],
            packet(VERSION_3_0, b"user\0token\0"),
            packet(VERSION_3_0, b"user\0token"),
            packet(VERSION_3_0, b"user\0a\0user\0b\0\0"),
            packet(VERSION_3_0, b"user\0a\0\0more"),
            packet(VERSION_3_0, b"user\0\xff\0\0"),
        ] {
            assert!(read_opening(&mut bytes.as_slice()).await.is_err(), "{bytes:?}");
        }
    }
}
