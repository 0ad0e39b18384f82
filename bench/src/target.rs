//! What is loaded: the broker's URL.

use tandem_client::Address;

/// Reads a URL as [`Address`] does, and the names that others have for `tcp://`, each with a port of its own:
/// `stomp://`, `nats://` and `mqtt://`.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse(url: &str) -> Result<Address, String> {
    let parsed = |url: &str| url.parse::<Address>().map_err(|error| error.to_string());
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let port = match scheme {
        "stomp" => 61613,
        "nats" => 4222,
        "mqtt" => 1883,
        _ => return parsed(url),
    };
    let rest = rest.trim_end_matches('/');
    parsed(&format!("tcp://{rest}")).or_else(|_| parsed(&format!("tcp://{rest}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_names_for_tcp_have_ports_of_their_own() {
        for (url, shown) in [
            ("ws://127.0.0.1:15674/ws", "ws://127.0.0.1:15674/ws"),
            ("https://broker/lp", "https://broker:443/lp"),
            ("stomp://broker", "tcp://broker:61613"),
            ("nats://127.0.0.1", "tcp://127.0.0.1:4222"),
            ("nats://127.0.0.1:9/", "tcp://127.0.0.1:9"),
            ("mqtt://[::1]", "tcp://[::1]:1883"),
        ] {
            assert_eq!(parse(url).unwrap().to_string(), shown, "{url}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_broker_is_said_so() {
        for (url, part) in [
            ("x", "scheme"),
            ("ws://", "host"),
            ("tcp://x", "port"),
            ("nats://:1", "host"),
            ("rs://x:1", "tcp"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}
