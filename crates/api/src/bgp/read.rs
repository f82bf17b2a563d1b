//! Reading single values.

use std::net::IpAddr;

use crate::FieldError;

/// An AS number; 0 counts as absent, as it does in GoBGP.
pub(super) fn as_number(path: &str, number: Option<i64>) -> Result<Option<u32>, FieldError> {
    match number {
        None | Some(0) => Ok(None),
        Some(number) => u32::try_from(number).map(Some).map_err(|_| {
            FieldError::new(
                path,
                number,
                "must be an AS number between 1 and 4294967295",
            )
        }),
    }
}

/// A number within bounds.
pub(super) fn within<T: TryFrom<i64>>(
    path: &str,
    number: i64,
    least: i64,
    most: i64,
    unit: &str,
) -> Result<T, FieldError> {
    let wrong = || {
        FieldError::new(
            path,
            number,
            format!("must be between {least} and {most}{unit}"),
        )
    };
    if !(least..=most).contains(&number) {
        return Err(wrong());
    }
    T::try_from(number).map_err(|_| wrong())
}

/// An address; absent when empty.
pub(super) fn address(path: &str, text: &str) -> Result<Option<IpAddr>, FieldError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(None);
    }
    trimmed
        .parse()
        .map(|address: IpAddr| Some(address.to_canonical()))
        .map_err(|_| FieldError::new(path, text, "must be an IPv4 or IPv6 address"))
}

/// A port; 179 when absent or 0.
pub(super) fn port(path: &str, number: Option<i64>) -> Result<u16, FieldError> {
    match number {
        None | Some(0) => Ok(179),
        Some(number) => within(path, number, 1, 65_535, " (0 means 179)"),
    }
}
