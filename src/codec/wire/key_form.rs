//! Finds the form in which the keys of a map have to be passed to a type that does not say which
//! form it wants.
//!
//! Serde decodes untagged, flattened and internally tagged types in two steps (adjacently tagged
//! ones too, if their content stands before their tag): it buffers the value, then converts the
//! buffer into the type. The conversion of a buffered key is exact: a text becomes no number and no
//! bool, and neither becomes a text. The MessagePack of this codec has numbers and bools as keys,
//! so its keys are passed as they are written. JavaScript and JSON have text as keys, and a text
//! `7` may stand for a number or for itself.
//!
//! A payload that does not decode is therefore decoded again. Each pass records the keys that were
//! refused as text. The next pass parses the keys of the maps that these keys belong to, and of all
//! maps at the same place: under the same names, whatever the positions in long arrays and the
//! numbers in between. Names may be data, so a few places that end in the same name stand for all
//! that do at their depth, and more of them for all at their depth.
//!
//! Alternatives considered: a buffer of our own. Refused because serde calls its own in the code
//! that it derives. Parsing all keys in the second pass. Refused because a type may have maps of
//! both kinds.

use super::{
    decode_error::{Error, record_refused_texts},
    scalar::parse_scalar,
};
use crate::msgpack::reader::{Reader, Token};

/// How keys are passed to a type that takes any value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyForm {
    AsWritten,
    /// Numbers and bools as text.
    Text,
    /// Texts that stand for a number or a bool as such.
    Parsed,
}

/// The forms of the keys of a payload. Default: all as written.
#[derive(Debug, Default)]
pub(super) struct KeyForms {
    is_text: bool,
    /// The maps whose keys are parsed: the number of bytes from the first key to the end of the
    /// payload, in descending order.
    parsed: Vec<usize>,
}

impl KeyForms {
    /// Returns the form of the keys of the map whose first key is this far from the end.
    pub(super) fn of_map(&self, bytes_left: usize) -> KeyForm {
        if self.parsed.binary_search_by(|map| bytes_left.cmp(map)).is_ok() {
            KeyForm::Parsed
        } else if self.is_text {
            KeyForm::Text
        } else {
            KeyForm::AsWritten
        }
    }
}

/// A payload is decoded again this number of times, if it is short.
const MAX_PASSES: usize = 64;

/// A long payload is decoded again this number of times, or until that makes [`MAX_BYTES`].
const MIN_PASSES: usize = 8;
const MAX_BYTES: usize = 16 << 20;

/// More places than this with the same last step and depth stand for all of them.
const MAX_PLACES_OF_NAME: usize = 4;

/// More places than this with the same depth stand for all of them.
const MAX_PLACES_OF_DEPTH: usize = 16;

/// Longer arrays are lists, in which all values have one type. Others may be tuples.
const MAX_TUPLE: u64 = 8;

/// Decodes a payload again that did not decode with all keys as written. `None` where no form of
/// the keys makes it decode.
pub(super) fn decode_with_other_keys<V>(
    payload: &[u8],
    mut decode: impl FnMut(KeyForms) -> Result<V, Error>,
) -> Option<V> {
    let (mut has_texts, mut has_scalars) = (false, false);
    for_each_key(payload, |key| match key.token {
        Token::Text(text) => has_texts |= parse_scalar(text).is_some(),
        _ => has_scalars = true,
    });
    let max_passes = (MAX_BYTES / payload.len().max(1)).clamp(MIN_PASSES, MAX_PASSES);
    for is_text in [false, true] {
        if !(if is_text { has_scalars } else { has_texts }) {
            continue;
        }
        let (mut places, mut parsed) = (Vec::new(), Vec::new());
        for _ in 0..max_passes {
            let forms = KeyForms { is_text, parsed: parsed.clone() };
            let (decoded, refused) = record_refused_texts(payload, || decode(forms));
            if let Ok(value) = decoded {
                return Some(value);
            }
            add_places(payload, &refused, &mut places);
            let maps = maps_at(payload, &places);
            if maps.len() == parsed.len() {
                break;
            }
            parsed = maps;
        }
    }
    None
}

/// A step from a map or an array to a value in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'p> {
    Name(&'p [u8]),
    Position(u64),
    /// Any position in a list, and any key that is or stands for a number or a bool.
    Any,
}

/// Adds the places of the maps that have these keys.
fn add_places<'p>(payload: &'p [u8], keys: &[*const u8], places: &mut Vec<Vec<Step<'p>>>) {
    for_each_key(payload, |key| {
        let Token::Text(text) = key.token else { return };
        let is_new = || !places.iter().any(|place| place == key.place);
        if keys.contains(&text.as_ptr()) && is_new() {
            places.push(key.place.to_vec());
        }
    });
}

/// Returns the maps at these places, as [`KeyForms::parsed`] has them.
fn maps_at(payload: &[u8], places: &[Vec<Step<'_>>]) -> Vec<usize> {
    let mut maps = Vec::new();
    for_each_key(payload, |key| {
        if key.is_first && is_at(key.place, places) {
            maps.push(key.map);
        }
    });
    maps
}

fn is_at(place: &[Step<'_>], places: &[Vec<Step<'_>>]) -> bool {
    let (mut of_depth, mut of_name) = (0, 0);
    for other in places.iter().filter(|other| other.len() == place.len()) {
        if other == place {
            return true;
        }
        of_depth += 1;
        of_name += usize::from(other.last() == place.last());
    }
    of_name > MAX_PLACES_OF_NAME || of_depth > MAX_PLACES_OF_DEPTH
}

/// A key of a map.
struct Key<'k, 'p> {
    token: Token<'p>,
    is_first: bool,
    /// The number of bytes from the map's first key to the end of the payload.
    map: usize,
    /// The steps from the root to the map.
    place: &'k [Step<'p>],
}

/// An array or a map that is being walked over.
struct Open {
    /// The number of values to come in it, keys included.
    left: u64,
    children: u64,
    is_map: bool,
    bytes_left: usize,
}

/// Visits the keys of all maps, in the order of the payload. Ends at malformed bytes.
fn for_each_key<'p>(payload: &'p [u8], mut visit: impl FnMut(&Key<'_, 'p>)) {
    let mut reader = Reader::new(payload);
    let mut open: Vec<Open> = Vec::new();
    // For each open array or map, the step to its current value.
    let mut steps: Vec<Step<'p>> = Vec::new();
    while let Ok(token) = reader.token() {
        if let Some((top, (step, place))) = open.last_mut().zip(steps.split_last_mut()) {
            let passed = top.children - top.left;
            if !top.is_map {
                let is_list = top.children > MAX_TUPLE;
                *step = if is_list { Step::Any } else { Step::Position(passed) };
            } else if passed % 2 == 0 {
                // In a map, keys and values alternate.
                visit(&Key { token, is_first: passed == 0, map: top.bytes_left, place });
                *step = match token {
                    Token::Text(text) if parse_scalar(text).is_none() => Step::Name(text),
                    _ => Step::Any,
                };
            }
            top.left -= 1;
        }
        let children = token.children();
        if children > 0 {
            let (is_map, bytes_left) = (matches!(token, Token::Map(_)), reader.bytes_left());
            open.push(Open { left: children, children, is_map, bytes_left });
            steps.push(Step::Any);
        }
        while open.last().is_some_and(|top| top.left == 0) {
            open.pop();
            steps.pop();
        }
        if open.is_empty() {
            return;
        }
    }
}
