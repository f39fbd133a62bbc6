//! Reads fields of the text that `INFO` returns.

/// Returns the value of a field, without surrounding whitespace.
pub(crate) fn info_field(info: &str, name: &str) -> Option<String> {
    let mut fields = info.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| *field == name).map(|(_, value)| value.trim().to_owned())
}
