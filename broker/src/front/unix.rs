//! Listening at Unix sockets, where everything is spoken that is spoken at a port.
//!
//! Who may connect is what the mode of the file says, and those who can count as connecting from this machine.
//! A file that a broker left behind which was killed is taken away; one at which somebody listens is not.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use crate::core::access::{Peer, UnixPeer};
use crate::front::door::Door;
use crate::front::gate::Permit;
use crate::front::listener::{BACKLOG, Secured, accepted};
use crate::front::pace::Pace;
use crate::front::wire::Stream;

/// A Unix socket at which the broker listens. Its file goes with it.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    file: SocketFile,
}

impl UnixSocket {
    /// Listens at this path, with this mode of the file. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AddrInUse`] where somebody listens already; [`ErrorKind::AlreadyExists`] where something
    /// is that is no socket; and whatever the system says.
    pub fn bind(path: &Path, mode: u32) -> io::Result<UnixSocket> {
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile::new(path)?;
        // Nobody can connect before `listen`: there is no moment at which the mode is another.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))?;
        Ok(UnixSocket { listener, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

/// Takes away the file of a socket at which nobody listens.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "the file is there already, and is no socket"));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Who listens and does not accept is not to be waited for.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Err(io::Error::new(ErrorKind::AddrInUse, "somebody listens there already")),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => fs::remove_file(path),
            ErrorKind::NotFound => Ok(()),
            ErrorKind::WouldBlock => {
                Err(io::Error::new(ErrorKind::AddrInUse, "somebody listens there already"))
            }
            _ => Err(error),
        },
    }
}

/// The file of a socket; gone with this, unless another has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile { path: path.to_owned(), inode: inode(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // If it cannot be removed, the next broker will.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Door {
    /// Accepts connections until the shutdown, which takes the file away.
    pub async fn listen_unix(self: Arc<Door>, socket: UnixSocket) {
        let path: Arc<str> = socket.path().to_string_lossy().into();
        let mut pace = Pace::new(self.settings.accepts_per_second_max);
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = self.accept_unix(&socket.listener, &path) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else { continue };
            let door = self.clone();
            let stream = Stream::Unix(Box::new(stream));
            self.tasks.spawn(async move { door.greet(stream, peer, permit, Secured::No).await });
            self.rest(&mut pace).await;
        }
    }

    async fn accept_unix(
        self: &Arc<Door>,
        listener: &UnixListener,
        path: &Arc<str>,
    ) -> Option<(UnixStream, Peer, Permit)> {
        self.gate.has_place().await;
        let (stream, _) = accepted(listener.accept().await).await?;
        let place = self.gate.place().await;
        let peer = match stream.peer_cred() {
            Ok(credentials) => Peer::Unix(Arc::new(UnixPeer {
                path: path.clone(),
                user: credentials.uid(),
                process: credentials.pid(),
            })),
            Err(error) => {
                tracing::debug!(%path, %error, "a peer left before it was known");
                return None;
            }
        };
        let permit = self.admit(place, &peer)?;
        Some((stream, peer, permit))
    }
}
