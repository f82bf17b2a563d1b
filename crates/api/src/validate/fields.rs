//! The rules that stand beside the fields themselves (`#[validate(…)]` of the wire types), with
//! the paths that users write.

use validator::{Validate, ValidationErrors, ValidationErrorsKind};

use super::Verdict;

/// Refuses every field whose own rule is broken, unless it is refused already.
pub(super) fn check(spec: &impl Validate, verdict: &mut Verdict) {
    if let Err(errors) = spec.validate() {
        collect("spec", &errors, verdict);
    }
}

fn collect(path: &str, errors: &ValidationErrors, verdict: &mut Verdict) {
    let mut members: Vec<_> = errors.errors().iter().collect();
    members.sort_by(|one, two| one.0.cmp(two.0));
    for (member, kind) in members {
        let path = format!("{path}.{}", written(member));
        match kind {
            ValidationErrorsKind::Struct(errors) => collect(&path, errors, verdict),
            ValidationErrorsKind::List(items) => {
                for (index, errors) in items {
                    collect(&format!("{path}[{index}]"), errors, verdict);
                }
            }
            ValidationErrorsKind::Field(_) if verdict.denies(&path) => {}
            ValidationErrorsKind::Field(errors) => {
                for error in errors {
                    let value = error.params.get("value");
                    let value = value.map(|value| format!("{value} ")).unwrap_or_default();
                    let reason = error.message.as_deref().unwrap_or("is not allowed");
                    verdict.deny(&path, format!("{value}{reason}"));
                }
            }
        }
    }
}

/// The name of a field as objects have it.
fn written(member: &str) -> String {
    if member == "as_number" {
        return "as".to_owned();
    }
    let mut words = member.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let mut letters = word.chars();
        let capital = letters.next().map(|letter| letter.to_ascii_uppercase());
        name + &capital.into_iter().chain(letters).collect::<String>()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::v1alpha2::{BgpConfSpec, EipSpec};

    #[test]
    fn broken_fields_are_named_as_users_write_them() {
        let spec: EipSpec = serde_json::from_value(json!({
            "address": "192.0.2.1", "bgp": { "asPathPrepend": 17, "aggregationLengthV6": 0 },
        }))
        .unwrap();
        let mut verdict = Verdict::default();
        check(&spec, &mut verdict);
        assert_eq!(
            verdict.denials,
            [
                "spec.bgp.aggregationLengthV6: 0 must be between 1 and 128",
                "spec.bgp.asPathPrepend: 17 must be between 0 and 16",
            ]
        );
        let spec: BgpConfSpec = serde_json::from_value(json!({ "as": 4_294_967_296_i64 })).unwrap();
        let mut verdict = Verdict::default();
        check(&spec, &mut verdict);
        assert_eq!(
            verdict.denials,
            ["spec.as: 4294967296 must be between 1 and 4294967295"]
        );
    }
}
