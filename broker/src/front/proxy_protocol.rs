//! The PROXY protocol (haproxy.org, `proxy-protocol.txt`), versions 1 and 2: what a proxy says of its client before
//! anything else is said on the connection.
//!
//! ```text
//! 1   "PROXY" SP ( "TCP4" / "TCP6" ) SP from SP to SP port SP port CRLF / "PROXY UNKNOWN" … CRLF    at most 107 octets
//! 2   12 octets of signature, version and command, family, 2 octets of length, addresses, TLVs
//! ```
//!
//! Only as much is read as belongs to it: what follows may be TLS. TLVs are not looked at, and a header with more of
//! them than `HEADER_BYTES_MAX` is refused.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The longest header of version 2.
const HEADER_BYTES_MAX: usize = 4096;

/// The longest header of version 1, by its specification.
const LINE_BYTES_MAX: usize = 107;

/// What both versions have at least: the shortest is `PROXY UNKNOWN` and the end of its line.
const BEGINNING: usize = 15;

/// The beginning of a header of version 2, up to its length.
const FIXED: usize = 16;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads the header. `None` where the proxy speaks for itself, or does not know for whom.
pub async fn read(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; BEGINNING];
    stream.read_exact(&mut header).await?;
    if header.starts_with(SIGNATURE) {
        read_on(stream, &mut header, FIXED).await?;
        let length = FIXED + usize::from(u16::from_be_bytes([header[FIXED - 2], header[FIXED - 1]]));
        if length > HEADER_BYTES_MAX {
            return Err(malformed("the header of the PROXY protocol is too long"));
        }
        read_on(stream, &mut header, length).await?;
        return parse_binary(&header);
    }
    if !header.starts_with(b"PROXY ") {
        return Err(malformed("there is no header of the PROXY protocol"));
    }
    while !header.ends_with(b"\n") {
        let mut next = [0; LINE_BYTES_MAX];
        let room = LINE_BYTES_MAX - header.len();
        let seen = match stream.peek(&mut next[..room]).await? {
            0 => return Err(malformed("the header of the PROXY protocol does not end")),
            seen => &next[..seen],
        };
        let line = seen.iter().position(|octet| *octet == b'\n').map_or(seen.len(), |end| end + 1);
        let length = header.len() + line;
        read_on(stream, &mut header, length).await?;
    }
    parse_line(&header)
}

async fn read_on(stream: &mut TcpStream, header: &mut Vec<u8>, length: usize) -> io::Result<()> {
    let known = header.len();
    header.resize(length.max(known), 0);
    stream.read_exact(&mut header[known..]).await.map(drop)
}

fn parse_line(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    let header = v1::Header::try_from(line).map_err(malformed)?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        v1::Addresses::Tcp6(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        v1::Addresses::Unknown => None,
    })
}

fn parse_binary(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    let header = v2::Header::try_from(header).map_err(malformed)?;
    if header.command == v2::Command::Local {
        return Ok(None);
    }
    Ok(match header.addresses {
        v2::Addresses::IPv4(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        v2::Addresses::IPv6(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    })
}

fn malformed(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// What is made of this, and how much of it was read, when it comes in pieces of that size.
    async fn take(bytes: &[u8], piece: usize) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let say = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in bytes.chunks(piece) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            stream.shutdown().await.unwrap();
            stream
        };
        let hear = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let header = read(&mut stream).await;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            (header, rest)
        };
        let (_stream, heard) = tokio::join!(say, hear);
        heard
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    const V4: &[u8] = &[192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0x1F, 0x90];

    #[tokio::test]
    async fn the_clients_address_is_read_and_nothing_behind_it() {
        let v6 = [&[0x20, 1, 0xD, 0xB8][..], &[0; 11], &[1], &[0; 16], &[0, 80, 0, 80]].concat();
        let known = |text: &str| Some(text.parse().unwrap());
        let tlvs = [V4, &[0x03, 0, 4, 1, 2, 3, 4, 0xEE, 0, 1, 9]].concat();
        let nonsense = [V4, &[0x03, 0xFF, 0xFF, 1]].concat();
        for (header, address) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 8080\r\n".to_vec(), known("192.0.2.1:12345")),
            (b"PROXY TCP6 2001:db8::1 ::1 80 80\r\n".to_vec(), known("[2001:db8::1]:80")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ::2 1 2\r\n".to_vec(), None),
            (binary(0x21, 0x11, V4), known("192.0.2.1:12345")),
            (binary(0x21, 0x21, &v6), known("[2001:db8::1]:80")),
            (binary(0x21, 0x11, &tlvs), known("192.0.2.1:12345")),
            (binary(0x21, 0x11, &nonsense), known("192.0.2.1:12345")),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x20, 0x11, V4), None),
            (binary(0x21, 0x31, &[0; 216]), None),
        ] {
            for piece in [1, 7, 1000] {
                let said = [&header[..], b"\x16what follows\n"].concat();
                let (heard, rest) = take(&said, piece).await;
                assert_eq!(heard.unwrap(), address, "{header:?}");
                assert_eq!(rest, b"\x16what follows\n");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let endless = format!("PROXY TCP4 {}\r\n", "1".repeat(200));
        for said in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"CONNECT\naccept-version:1.2\n\n\0",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 12345\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 80",
            b"PROXY TCP4 a b c d\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 123456 80\r\n",
            b"PROXY",
            b"",
            endless.as_bytes(),
            &binary(0x31, 0x11, V4),
            &binary(0x2F, 0x11, V4),
            &binary(0x21, 0x11, &V4[..4]),
            &binary(0x21, 0x11, &[0; HEADER_BYTES_MAX]),
            &binary(0x21, 0x11, V4)[..20],
        ] {
            assert!(take(said, 5).await.0.is_err(), "{said:?}");
        }
    }
}
