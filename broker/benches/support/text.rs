//! What messages carry: words, and records as devices send them.
#![allow(dead_code, reason = "not all who share it use all of it")]

/// So many bytes of words: some often, some seldom.
pub fn words(length: usize) -> Vec<u8> {
    const WORDS: &str =
        "the of a in broker message topic who subscriber queue and to is delivers router session";
    let words: Vec<_> = WORDS.split(' ').collect();
    let mut text = Vec::with_capacity(length + 16);
    let mut chance: u32 = 1;
    while text.len() < length {
        chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // The smaller of two: the first words come more often.
        let (one, other) = (chance >> 28, chance >> 24 & 15);
        text.extend_from_slice(words[one.min(other) as usize].as_bytes());
        text.push(b' ');
    }
    text.truncate(length);
    text
}

/// A JSON array of about so many bytes: readings of devices, with numbers, texts and a flag.
pub fn records(length: usize) -> String {
    let mut array = String::from("[");
    for n in 0.. {
        let record = format!(
            r#"{{"device":"plant{}.device{n}","celsius":{}.5,"count":{},"valid":true,"unit":"C"}}"#,
            n % 10,
            20 + n % 10,
            n * 1000
        );
        if n > 0 {
            if array.len() + record.len() + 2 > length {
                break;
            }
            array.push(',');
        }
        array.push_str(&record);
    }
    array.push(']');
    array
}
