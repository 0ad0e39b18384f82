//! What stands before the languages: proxies, names, paths, files, and how much memory may be in use.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::config::{Config, ConfigError};
use crate::front::files::Files;
use crate::front::hosts::HostPolicy;
use crate::front::proxies::{Forwarding, Proxies};
use crate::memory::MemoryLimits;

/// HTTP.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// What every path begins with, such as `/broker`: where a proxy hands on a part of a site. By default nothing.
    pub prefix: Option<String>,
    /// Names under which the broker may be asked for in the clear: `broker.example.com`, `*.example.com`, or `*` for any.
    /// Addresses, `localhost` and the names of `websocket.allowed_origins` always are.
    pub hosts: Vec<String>,
    /// A folder whose files are served at all paths that mean nothing else. By default none.
    pub files: Option<PathBuf>,
    /// Bytes of those files that are in memory at a time, and of the longest one. By default 64 MiB.
    pub files_bytes_max: Option<usize>,
}

/// Proxies that may say for whom they speak.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxiesConfig {
    /// Addresses and networks (`10.0.0.0/8`), and `unix` for whoever connects over a Unix socket. By default none.
    pub trusted: Vec<String>,
    /// The header in which they say it over HTTP.
    pub header: ForwardingHeader,
    /// Those of `listen` and `listen_tls` at which connections begin with the PROXY protocol, and come from `trusted` only.
    pub protocol: Vec<SocketAddr>,
    /// How long that beginning may take, in seconds. By default 3.
    pub protocol_time_s: Option<u64>,
}

/// The header in which proxies say for whom they speak.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and `X-Forwarded-Host`.
    #[default]
    XForwardedFor,
    /// `Forwarded`.
    Forwarded,
}

/// How much memory the process may use, and what is done on the way there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Bytes. By default what the control group of the process allows, or what the machine has.
    pub limit_bytes: Option<u64>,
    /// From this part on, in percent, connections that publish are not read. By default 60.
    pub slow_percent: Option<u64>,
    /// From this part on nobody new is let in. By default 75.
    pub refuse_percent: Option<u64>,
    /// From this part on the sessions that have most waiting for them are ended. By default 85.
    pub disconnect_percent: Option<u64>,
}

/// One, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Several.
    More(Vec<String>),
}

impl OneOrMore {
    /// All of them.
    pub fn all(&self) -> &[String] {
        match self {
            OneOrMore::One(one) => std::slice::from_ref(one),
            OneOrMore::More(more) => more,
        }
    }
}

impl Config {
    /// Which proxies are believed.
    pub fn proxies(&self) -> Result<Proxies, ConfigError> {
        let ProxiesConfig { trusted, header, protocol, protocol_time_s } = &self.proxies;
        let refused = |why: String| Err(ConfigError::Refused(format!("proxies.{why}")));
        let forwarding = match header {
            ForwardingHeader::XForwardedFor => Forwarding::XForwarded,
            ForwardingHeader::Forwarded => Forwarding::Forwarded,
        };
        let time_max = Duration::from_secs(protocol_time_s.unwrap_or(3).max(1));
        for address in protocol {
            if !self.listen.contains(address) && !self.listen_tls.contains(address) {
                return refused(format!("protocol: {address} is none of `listen` and `listen_tls`"));
            }
        }
        if !protocol.is_empty() && trusted.is_empty() {
            return refused("protocol: say in `trusted` which proxies may connect there".into());
        }
        Proxies::new(trusted, forwarding, time_max).or_else(|wrong| {
            refused(format!(
                "trusted: {wrong:?} is no address, no network such as \"10.0.0.0/8\", and not \"unix\""
            ))
        })
    }

    /// Under which names the broker may be asked for.
    pub fn hosts(&self) -> Result<HostPolicy, ConfigError> {
        let origins = self.websocket.allowed_origins.iter().flatten();
        let origins = origins.filter_map(|origin| Some(origin.split_once("://")?.1));
        // A port is no part of the name, and an address needs no mention.
        let origins = origins.filter(|authority| !authority.starts_with('['));
        let origins = origins.map(|authority| authority.rsplit_once(':').map_or(authority, |(name, _)| name));
        let names = self.http.hosts.iter().map(String::as_str).chain(origins);
        HostPolicy::new(names).map_err(|wrong| {
            ConfigError::Refused(format!(
                "http.hosts: {wrong:?} is no name of a host, such as \"broker.example.com\" or \"*.example.com\""
            ))
        })
    }

    /// What every path begins with; without a slash at the end, so mostly empty.
    pub fn prefix(&self) -> Result<String, ConfigError> {
        let Some(prefix) = self.http.prefix.as_deref().filter(|prefix| !prefix.is_empty() && *prefix != "/")
        else {
            return Ok(String::new());
        };
        if !is_path(prefix) || prefix.ends_with('/') {
            return Err(ConfigError::Refused(format!("http.prefix: {prefix:?} must be like \"/broker\"")));
        }
        Ok(prefix.to_owned())
    }

    /// The paths that WebSocket is at; any, where there are none.
    pub fn websocket_paths(&self) -> Result<Vec<String>, ConfigError> {
        let paths = self.websocket.path.as_ref().map(OneOrMore::all).unwrap_or_default();
        match paths.iter().find(|path| !is_path(path)) {
            Some(wrong) => {
                Err(ConfigError::Refused(format!("websocket.path: {wrong:?} must be like \"/ws\"")))
            }
            None => Ok(paths.to_vec()),
        }
    }

    /// The files that are served.
    pub fn files(&self) -> Result<Option<Arc<Files>>, ConfigError> {
        let Some(folder) = &self.http.files else { return Ok(None) };
        let bytes_max = self.http.files_bytes_max.unwrap_or(64 * 1024 * 1024);
        let files = Files::new(folder, bytes_max).map_err(|error| {
            ConfigError::Refused(format!("http.files: {} cannot be served: {error}", folder.display()))
        })?;
        Ok(Some(Arc::new(files)))
    }

    /// How much memory may be in use.
    pub fn memory(&self) -> Result<MemoryLimits, ConfigError> {
        let MemoryConfig { limit_bytes, slow_percent, refuse_percent, disconnect_percent } = self.memory;
        let limits = MemoryLimits {
            limit_bytes,
            slow_percent: slow_percent.unwrap_or(60),
            refuse_percent: refuse_percent.unwrap_or(75),
            disconnect_percent: disconnect_percent.unwrap_or(85),
        };
        let MemoryLimits { slow_percent, refuse_percent, disconnect_percent, .. } = limits;
        if slow_percent == 0 || slow_percent > refuse_percent || refuse_percent > disconnect_percent {
            return Err(ConfigError::Refused(
                "memory: slow_percent, refuse_percent and disconnect_percent must be in this order, from 1"
                    .into(),
            ));
        }
        Ok(limits)
    }
}

fn is_path(path: &str) -> bool {
    let legal = |octet: u8| octet.is_ascii_alphanumeric() || b"/-._~".contains(&octet);
    path.starts_with('/') && path.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::access::Peer;

    fn refusal(text: &str) -> String {
        Config::parse(text).unwrap().check().unwrap_err().to_string()
    }

    #[test]
    fn the_proxy_protocol_is_for_addresses_that_there_are_and_proxies_that_are_named() {
        let text = "listen = [\"127.0.0.1:1\"]\n[proxies]\nprotocol = [\"127.0.0.1:1\"]\n";
        assert!(refusal(text).contains("proxies.protocol"));
        assert!(refusal(&text.replace("[\"127.0.0.1:1\"]\n[", "[\"127.0.0.1:2\"]\n[")).contains("none of"));
        assert!(refusal("[proxies]\ntrusted = [\"10.0.0.0/99\"]\n").contains("10.0.0.0/99"));
        Config::parse(&format!("{text}trusted = [\"127.0.0.1\"]\n")).unwrap().check().unwrap();
    }

    #[test]
    fn the_names_of_origins_are_names_of_the_broker() {
        let config = Config::parse(
            "[http]\nhosts = [\"b.example\"]\n[websocket]\nallowed_origins = [\"same-origin\", \
             \"https://a.example:8443\", \"http://[::1]:80\", \"https://*.c.example\"]\n",
        );
        let config = config.unwrap();
        config.check().unwrap();
        let (hosts, peer) = (config.hosts().unwrap(), Peer::Local);
        for (host, right) in
            [("a.example", true), ("b.example:1", true), ("x.c.example", true), ("d.example", false)]
        {
            assert_eq!(hosts.allows(&peer, Some(host)), right, "{host}");
        }
        assert!(refusal("[http]\nhosts = [\"https://a.example\"]\n").contains("http.hosts"));
    }

    #[test]
    fn paths_files_and_percentages_are_checked_before_anything_starts() {
        for (text, said) in [
            ("[http]\nprefix = \"broker\"\n", "http.prefix"),
            ("[http]\nprefix = \"/broker/\"\n", "http.prefix"),
            ("[websocket]\npath = \"ws\"\n", "websocket.path"),
            ("[websocket]\npath = [\"/ws\", \"/w s\"]\n", "websocket.path"),
            ("[http]\nfiles = \"/there/is/none\"\n", "http.files"),
            ("[memory]\nslow_percent = 90\n", "memory: "),
            ("[memory]\nslow_percent = 0\n", "memory: "),
        ] {
            assert!(refusal(text).contains(said), "{text}");
        }
        let config = Config::parse("[websocket]\npath = [\"/a\", \"/b\"]\n[http]\nprefix = \"/\"\n").unwrap();
        assert_eq!((config.websocket_paths().unwrap().len(), config.prefix().unwrap()), (2, String::new()));
    }
}
