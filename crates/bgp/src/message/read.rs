//! What a peer's messages say: cut out of the octets, counted, and put in plain words.

use bytes::{Bytes, BytesMut};
use rustbgpd_wire::{DecodeError, Message, NotificationMessage, PathAttribute, UpdateMessage};

/// What an UPDATE of the peer amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UpdateSummary {
    pub announced: u64,
    pub withdrawn: u64,
    /// It had errors that RFC 7606 lets pass.
    pub malformed: bool,
}

/// Reads an UPDATE as far as it must be to be counted and checked (RFC 7606).
pub(crate) fn summarize(
    update: &UpdateMessage,
    internal: bool,
    four_octet_as: bool,
) -> Result<UpdateSummary, DecodeError> {
    let parsed = update.parse_revised(four_octet_as, internal, false, &[])?;
    let mut summary = UpdateSummary {
        announced: parsed.update.announced.len() as u64,
        withdrawn: parsed.update.withdrawn.len() as u64,
        malformed: !parsed.malformed.is_empty(),
    };
    let in_body = summary.announced > 0;
    for attribute in &parsed.update.attributes {
        match attribute {
            PathAttribute::MpReachNlri(reach) => summary.announced += reach.announced.len() as u64,
            PathAttribute::MpUnreachNlri(unreach) => {
                summary.withdrawn += unreach.withdrawn.len() as u64;
            }
            _ => {}
        }
    }
    if !summary.malformed && summary.announced > 0 {
        summary.malformed = rustbgpd_wire::validate::validate_update_attributes(
            &parsed.update.attributes,
            true,
            in_body,
            !internal,
        )
        .is_err();
    }
    Ok(summary)
}

/// Cuts the next complete message off `buffer` and decodes it; `None` when
/// more octets are needed. `limit` bounds what may be waited for.
pub(crate) fn next_message(
    buffer: &mut BytesMut,
    limit: u16,
) -> Result<Option<Message>, DecodeError> {
    let Some(length) = rustbgpd_wire::peek_message_length(buffer, limit)? else {
        return Ok(None);
    };
    if buffer.len() < usize::from(length) {
        return Ok(None);
    }
    let mut frame: Bytes = buffer.split_to(usize::from(length)).freeze();
    rustbgpd_wire::decode_message(&mut frame, limit).map(Some)
}

/// Meaning and text of a NOTIFICATION.
pub(crate) fn explain(notification: &NotificationMessage) -> (String, Option<String>) {
    let meaning = rustbgpd_wire::notification::description(notification.code, notification.subcode);
    let text = rustbgpd_wire::notification::extract_shutdown_communication(notification)
        .ok()
        .flatten()
        .filter(|text| !text.is_empty())
        .map(str::to_owned);
    (meaning.to_owned(), text)
}
