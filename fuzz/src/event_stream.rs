//! A reader of event streams as the HTML standard has it, section 9.2.6, "Interpreting an event stream".

/// What a page sees of an event.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Event {
    /// The name, `message` unless another was told.
    pub name: String,
    /// The lines of its data, put together.
    pub data: String,
    /// The last id that was told up to it.
    pub id: String,
}

/// Reads a whole stream: its events, the last id, and the last time to wait. What has no empty line behind it is no event.
pub fn read(stream: &str) -> (Vec<Event>, String, Option<u64>) {
    let (mut events, mut id, mut retry) = (Vec::new(), String::new(), None);
    let (mut name, mut data, mut has_data) = (String::new(), String::new(), false);
    for line in stream.replace("\r\n", "\n").replace('\r', "\n").split_terminator('\n') {
        if line.is_empty() {
            if std::mem::take(&mut has_data) {
                let name = if name.is_empty() { "message".to_owned() } else { name.clone() };
                events.push(Event { name, data: data.strip_suffix('\n').unwrap_or(&data).to_owned(), id: id.clone() });
            }
            (name, data) = (String::new(), String::new());
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value.to_owned(),
            "data" => {
                has_data = true;
                data += value;
                data.push('\n');
            }
            "id" if !value.contains('\0') => id = value.to_owned(),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => retry = value.parse().ok().or(retry),
            _ => {}
        }
    }
    (events, id, retry)
}
