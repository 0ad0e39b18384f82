//! Files of a folder, for pages that come from the same place as the broker.
//!
//! A path is that of a file below the folder, or of a folder with an `index.html` in it. What leads out of the folder,
//! by its words or by symbolic links, is not there, nor is what begins with a dot. A file is read whole; how much of all
//! that is on its way to somebody is in memory has a limit.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::front::answer::{Answer, content, empty, later, text};

/// What memory is counted in.
const UNIT_BYTES: usize = 1024;

/// What folders are asked for.
const INDEX: &str = "index.html";

/// A folder whose files are served.
#[derive(Clone, Debug)]
pub struct Files {
    root: PathBuf,
    /// Units that may be in memory.
    room: Arc<Semaphore>,
    bytes_max: usize,
}

/// A file that was read, and the room that it takes.
struct Held {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a path led to.
enum Found {
    File(Box<(File, Metadata, PathBuf)>),
    /// A folder, asked for without its slash.
    Folder,
    Nothing,
}

impl Files {
    /// Those of this folder, of which so many bytes may be in memory.
    pub fn new(folder: &Path, bytes_max: usize) -> io::Result<Files> {
        let root = folder.canonicalize()?;
        if !root.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no folder"));
        }
        let units = (bytes_max / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Ok(Files { root, room: Arc::new(Semaphore::new(units)), bytes_max })
    }

    /// Answers a request for a path, of which `asked` is how the client wrote it.
    pub async fn answer(&self, method: &Method, path: &str, asked: &str, headers: &HeaderMap) -> Answer {
        let Some(relative) = relative(path) else { return missing() };
        let (root, has_slash) = (self.root.clone(), path.ends_with('/'));
        let looking = tokio::task::spawn_blocking(move || find(&root, &relative, has_slash));
        let (file, metadata, path) = match looking.await {
            Ok(Found::File(found)) => *found,
            Ok(Found::Folder) => return moved(asked),
            Ok(Found::Nothing) => return missing(),
            Err(_) => return text(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n"),
        };
        let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        let version = Version::of(&metadata);
        if version.is_known(headers) {
            return version.tell(empty(StatusCode::NOT_MODIFIED));
        }
        let content_type = content_type(&path);
        if *method == Method::HEAD {
            let mut answer = content(StatusCode::OK, content_type, Bytes::new());
            answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            return version.tell(answer);
        }
        if length > self.bytes_max {
            tracing::warn!(path = %path.display(), length, max = self.bytes_max, "a file is too long to be served");
            return text(StatusCode::INTERNAL_SERVER_ERROR, "the file is too long to be served\n");
        }
        let units = u32::try_from(length.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let Ok(room) = self.room.clone().try_acquire_many_owned(units) else {
            return later("too many files are on their way\n");
        };
        let reading = tokio::task::spawn_blocking(move || read(file, length, room));
        match reading.await {
            Ok(Ok(bytes)) => version.tell(content(StatusCode::OK, content_type, bytes)),
            _ => text(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n"),
        }
    }
}

/// No more than was there when its room was reserved: it may be growing.
fn read(file: File, length: usize, room: OwnedSemaphorePermit) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(length);
    file.take(length as u64).read_to_end(&mut bytes)?;
    Ok(Bytes::from_owner(Held { bytes, _room: room }))
}

/// The path below the folder that this means; none if it means none.
fn relative(path: &str) -> Option<PathBuf> {
    let decoded = decode(path.strip_prefix('/')?)?;
    let is_plain = |part: &str| {
        // A colon, a backslash: some systems take what is behind for something else.
        !part.starts_with('.') && !part.contains(['\\', ':']) && !part.contains(char::is_control)
    };
    if !decoded.split('/').all(|part| part.is_empty() || is_plain(part)) {
        return None;
    }
    let relative: PathBuf = decoded.split('/').filter(|part| !part.is_empty()).collect();
    relative.components().all(|part| matches!(part, Component::Normal(_))).then_some(relative)
}

/// Takes the percent signs away.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn find(root: &Path, relative: &Path, has_slash: bool) -> Found {
    let mut path = root.join(relative);
    loop {
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(error) => return nothing(&path, &error),
        };
        // Where symbolic links lead counts, and not where they are.
        if !real.starts_with(root) {
            tracing::warn!(path = %path.display(), "a link leads out of the folder of files, and is not followed");
            return Found::Nothing;
        }
        let metadata = match real.metadata() {
            Ok(metadata) => metadata,
            Err(error) => return nothing(&path, &error),
        };
        if metadata.is_dir() {
            if !has_slash && !relative.as_os_str().is_empty() {
                return if real.join(INDEX).exists() { Found::Folder } else { Found::Nothing };
            }
            path = real.join(INDEX);
            if path.is_dir() {
                return Found::Nothing;
            }
            continue;
        }
        if !metadata.is_file() || (has_slash && !real.ends_with(INDEX)) {
            return Found::Nothing;
        }
        return match File::open(&real) {
            Ok(file) => Found::File(Box::new((file, metadata, real))),
            Err(error) => nothing(&real, &error),
        };
    }
}

/// Why there is none is for the log, unless there simply is none.
fn nothing(path: &Path, error: &io::Error) -> Found {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    if !matches!(error.kind(), NotFound | NotADirectory | InvalidFilename) {
        tracing::warn!(path = %path.display(), %error, "a file cannot be read");
    }
    Found::Nothing
}

/// By what a client knows whether it has a file already.
struct Version {
    tag: String,
    modified: SystemTime,
}

impl Version {
    fn of(metadata: &Metadata) -> Version {
        let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Version { tag: format!("\"{:x}-{:x}\"", since.as_nanos(), metadata.len()), modified }
    }

    /// Whether the client has this one (RFC 9110, 13.2.2).
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let words = |name| headers.get_all(name).iter().filter_map(|line: &HeaderValue| line.to_str().ok());
        if headers.contains_key(IF_NONE_MATCH) {
            let mut tags = words(IF_NONE_MATCH).flat_map(|line| line.split(',')).map(str::trim);
            return tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.tag);
        }
        let since = words(IF_MODIFIED_SINCE).next().and_then(|date| httpdate::parse_http_date(date).ok());
        // Dates have no fractions of seconds.
        since.is_some_and(|since| self.modified < since + Duration::from_secs(1))
    }

    fn tell(&self, mut answer: Answer) -> Answer {
        let modified = httpdate::fmt_http_date(self.modified);
        let headers = answer.headers_mut();
        let mut put = |name: HeaderName, value: &str| {
            HeaderValue::from_str(value).map(|value| headers.insert(name, value))
        };
        let _ = put(ETAG, &self.tag);
        let _ = put(LAST_MODIFIED, &modified);
        let _ = put(CACHE_CONTROL, "no-cache");
        let _ = put(X_CONTENT_TYPE_OPTIONS, "nosniff");
        answer
    }
}

fn missing() -> Answer {
    text(StatusCode::NOT_FOUND, "nothing is here\n")
}

fn moved(asked: &str) -> Answer {
    let mut answer = text(StatusCode::MOVED_PERMANENTLY, "this is a folder\n");
    // Two slashes at the beginning would be the name of another host.
    let location = format!("/{}/", asked.trim_start_matches('/'));
    if let Ok(location) = HeaderValue::from_str(&location) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

/// By the end of its name. What is not known is for nobody to guess.
fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_folder() {
        for (path, meant) in [
            ("/", Some("")),
            ("/a.html", Some("a.html")),
            ("/a//b/", Some("a/b")),
            ("/a%20b", Some("a b")),
            ("/%C3%A4", Some("ä")),
            ("/..", None),
            ("/a/../b", None),
            ("/%2e%2e/a", None),
            ("/a/%2E%2e%2Fb", None),
            ("/..%2f..%2fetc/passwd", None),
            ("/.git/config", None),
            ("/a/.b", None),
            ("/a%00b", None),
            ("/a%5c..", None),
            ("/c:a", None),
            ("/%zz", None),
            ("/%2", None),
            ("/%ff", None),
            ("a", None),
            ("", None),
            ("/%2fetc", Some("etc")),
        ] {
            assert_eq!(relative(path).as_deref(), meant.map(Path::new), "{path}");
        }
    }
}
