//! Offers of extensions as anybody may write them: legal ones in all their spellings, wrong ones among them, over
//! several lines. What is made of them is held against what section 7.1 of RFC 7692 says, told a second time.

use proptest::prelude::*;

use tandem_protocols::websocket::deflate::WindowBits;
use tandem_protocols::websocket::extensions::{ExtensionError, Mode, Policy, accept_answer, negotiate};

/// An extension as it is meant; how it is written is decided apart.
#[derive(Clone, Debug)]
struct Offer {
    name: &'static str,
    parameters: Vec<(&'static str, Option<&'static str>)>,
}

const NAMES: &[&str] = &[
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
];

fn offer() -> impl Strategy<Value = Offer> {
    let name = prop_oneof![8 => Just("permessage-deflate"), 1 => Just("permessage-bzip2"), 1 => Just("x-webkit-deflate-frame")];
    let value = prop_oneof![
        4 => Just(None),
        4 => prop_oneof![Just("8"), Just("9"), Just("10"), Just("12"), Just("15")].prop_map(Some),
        1 => prop_oneof![Just("7"), Just("16"), Just("010"), Just("1"), Just("x"), Just("99999999999")].prop_map(Some),
    ];
    let parameter = prop_oneof![12 => proptest::sample::select(NAMES), 1 => Just("mystery")];
    // A legal pairing of name and value more often than not.
    let parameter = (parameter, value).prop_map(|(name, value)| match name {
        "server_no_context_takeover" | "client_no_context_takeover" if value != Some("x") => (name, None),
        "server_max_window_bits" if value.is_none() => (name, Some("11")),
        _ => (name, value),
    });
    (name, proptest::collection::vec(parameter, 0..4))
        .prop_map(|(name, parameters)| Offer { name, parameters })
}

/// One of the ways of writing it.
fn written(offer: &Offer, style: u8) -> String {
    let (space, quote, upper) = (style & 1 != 0, style & 2 != 0, style & 4 != 0);
    let gap = if space { " \t" } else { "" };
    let mut text = if upper { offer.name.to_uppercase() } else { offer.name.to_owned() };
    for (name, value) in &offer.parameters {
        let name = if upper { name.to_uppercase() } else { (*name).to_owned() };
        text.push_str(&format!("{gap};{gap}{name}"));
        match value {
            None => {}
            Some(value) if quote => text.push_str(&format!("{gap}={gap}\"{value}\"")),
            Some(value) => text.push_str(&format!("{gap}={gap}{value}")),
        }
    }
    text
}

/// Whether a server with zlib may take it.
fn is_acceptable(offer: &Offer) -> bool {
    let mut seen = Vec::new();
    offer.name == "permessage-deflate"
        && offer.parameters.iter().all(|(name, value)| {
            let bits: Option<u8> = value.filter(|v| !v.starts_with('0')).and_then(|v| v.parse().ok());
            let bits = bits.filter(|bits| (8..=15).contains(bits));
            let fresh = !seen.contains(name);
            seen.push(*name);
            fresh
                && match *name {
                    "server_no_context_takeover" | "client_no_context_takeover" => value.is_none(),
                    "server_max_window_bits" => bits.is_some_and(|bits| bits > 8),
                    "client_max_window_bits" => value.is_none() || bits.is_some(),
                    _ => false,
                }
        })
}

fn value<'a>(parameters: &'a [(String, Option<u8>)], name: &str) -> Option<&'a Option<u8>> {
    parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value)
}

fn policy() -> impl Strategy<Value = Policy> {
    (any::<bool>(), any::<bool>(), 9u8..=15, 9u8..=15).prop_map(
        |(server, client, server_bits, client_bits)| Policy {
            mode: Mode::Offered,
            server_no_context_takeover: server,
            client_no_context_takeover: client,
            server_max_window_bits: WindowBits::new(server_bits).expect("9 to 15"),
            client_max_window_bits: WindowBits::new(client_bits).expect("9 to 15"),
            legacy_frames: false,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_first_acceptable_offer_is_answered_as_the_rfc_says(
        offers in proptest::collection::vec((offer(), 0u8..8, any::<bool>()), 0..5),
        policy in policy(),
    ) {
        let mut lines = vec![String::new()];
        for (offer, style, new_line) in &offers {
            if *new_line {
                lines.push(String::new());
            }
            let line = lines.last_mut().expect("there is one");
            line.push_str(if line.is_empty() { "" } else { " ,, " });
            line.push_str(&written(offer, *style));
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let taken = negotiate(&policy, &lines).expect("nothing is malformed");
        let wanted = offers.iter().map(|(offer, ..)| offer).find(|offer| is_acceptable(offer));
        prop_assert_eq!(taken.is_some(), wanted.is_some());
        let (Some((agreement, answer)), Some(offer)) = (taken, wanted) else { return Ok(()) };

        let mut pieces = answer.split("; ");
        prop_assert_eq!(pieces.next(), Some("permessage-deflate"));
        let answered: Vec<(String, Option<u8>)> = pieces
            .map(|piece| match piece.split_once('=') {
                None => (piece.to_owned(), None),
                Some((name, bits)) => (name.to_owned(), Some(bits.parse().expect("a number"))),
            })
            .collect();
        let offered: Vec<(String, Option<u8>)> = offer
            .parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.map(|bits| bits.parse().expect("a number"))))
            .collect();

        // 7.1.1.1: what the client asks of the server is answered, and what is answered holds.
        let server_alone = value(&answered, "server_no_context_takeover").is_some();
        prop_assert!(server_alone || value(&offered, "server_no_context_takeover").is_none());
        prop_assert!(server_alone || !policy.server_no_context_takeover);
        prop_assert_eq!(agreement.server.takeover, !server_alone);
        // 7.1.1.2: a client that says that it keeps no context is held to it, and may be asked to.
        let client_alone = value(&answered, "client_no_context_takeover").is_some();
        prop_assert_eq!(agreement.client.takeover, !client_alone);
        prop_assert!(client_alone || !policy.client_no_context_takeover);
        // 7.1.2.1: at most what was offered, and at most what we want.
        let server_bits = value(&answered, "server_max_window_bits").map(|bits| bits.expect("a value"));
        if let Some(Some(offered)) = value(&offered, "server_max_window_bits") {
            prop_assert!(server_bits.is_some_and(|bits| bits <= *offered));
        }
        prop_assert_eq!(agreement.server.bits.get(), server_bits.unwrap_or(15));
        prop_assert!(agreement.server.bits <= policy.server_max_window_bits);
        // 7.1.2.2: only who offers it may be answered, with a value, of at most what was offered.
        match (value(&answered, "client_max_window_bits"), value(&offered, "client_max_window_bits")) {
            (None, _) => prop_assert_eq!(agreement.client.bits, WindowBits::MAX),
            (Some(None), _) => prop_assert!(false, "an answer has a value"),
            (Some(Some(_)), None) => prop_assert!(false, "it was not offered"),
            (Some(Some(bits)), Some(offered)) => {
                prop_assert!(*bits <= offered.unwrap_or(15));
                prop_assert_eq!(agreement.client.bits.get(), (*bits).max(9));
            }
        }
    }

    /// Whatever a server answers, the client takes it only if the RFC lets it.
    #[test]
    fn an_answer_is_taken_only_if_it_keeps_to_the_offer(
        answers in proptest::collection::vec((offer(), 0u8..8), 0..3),
        policy in policy(),
    ) {
        let line: Vec<String> = answers.iter().map(|(answer, style)| written(answer, *style)).collect();
        let taken = accept_answer(&policy, &[&line.join(", ")]);
        let legal = |answer: &Offer| {
            let bits = |name| answer.parameters.iter().find(|(found, _)| *found == name).map(|(_, bits)| *bits);
            let number = |bits: &str| bits.parse::<u8>().expect("a number");
            // 8 is what a client can inflate, though a server that is us does not offer it.
            let widened = Offer {
                parameters: answer
                    .parameters
                    .iter()
                    .map(|(name, bits)| (*name, if *bits == Some("8") { Some("9") } else { *bits }))
                    .collect(),
                ..answer.clone()
            };
            is_acceptable(&widened)
                && bits("client_max_window_bits") != Some(None)
                && (bits("server_no_context_takeover").is_some() || !policy.server_no_context_takeover)
                && bits("server_max_window_bits").flatten().map_or(15, number) <= policy.server_max_window_bits.get()
                && bits("client_max_window_bits").flatten().map_or(8, number) <= policy.client_max_window_bits.get()
        };
        match (&answers[..], taken) {
            ([], taken) => prop_assert_eq!(taken, Ok(None)),
            ([(answer, _)], Ok(Some(_))) => prop_assert!(legal(answer)),
            ([(answer, _)], Err(ExtensionError::BadAnswer)) => prop_assert!(!legal(answer)),
            ([(answer, _)], Err(ExtensionError::NotOffered)) => prop_assert!(answer.name != "permessage-deflate"),
            (_, taken) => prop_assert!(answers.len() == 2 && taken.is_err(), "{taken:?}"),
        }
    }

    /// Noise of the octets that mean something here, over several lines.
    #[test]
    fn no_header_panics_or_is_half_taken(lines in proptest::collection::vec("(permessage-deflate|[a-z_;=,\"\\\\ \t0-9-]){0,12}", 0..4)) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let policy = Policy { legacy_frames: true, ..Policy::default() };
        let whole = negotiate(&policy, &lines);
        // Where one line is malformed, nothing of the others is taken.
        let alone: Vec<_> = lines.iter().map(|line| negotiate(&policy, &[line])).collect();
        prop_assert_eq!(whole.is_err(), alone.iter().any(Result::is_err));
        let _ = accept_answer(&policy, &lines);
    }
}
