//! Label selectors: read once, asked often.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use serde_json::Value;

use crate::FieldError;

/// A label selector that was understood. The empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Selector);

impl Labels {
    /// Reads the selector at `path`; names the expression that cannot be understood.
    pub fn read(path: &str, selector: &LabelSelector) -> Result<Self, FieldError> {
        let expressions = selector.match_expressions.as_deref().unwrap_or_default();
        for (index, expression) in expressions.iter().enumerate() {
            let operator = expression.operator.as_str();
            let values = expression
                .values
                .as_ref()
                .is_some_and(|list| !list.is_empty());
            let at = |field: &str| format!("{path}.matchExpressions[{index}].{field}");
            match operator {
                "In" | "NotIn" if values => {}
                "In" | "NotIn" => {
                    return Err(FieldError::new(
                        at("values"),
                        Value::Null,
                        format!("must list at least one value for {operator}"),
                    ));
                }
                "Exists" | "DoesNotExist" if !values => {}
                "Exists" | "DoesNotExist" => {
                    return Err(FieldError::new(
                        at("values"),
                        expression.values.clone().unwrap_or_default(),
                        format!("must be empty for {operator}"),
                    ));
                }
                _ => {
                    return Err(FieldError::new(
                        at("operator"),
                        operator,
                        "must be In, NotIn, Exists or DoesNotExist",
                    ));
                }
            }
        }
        Selector::try_from(selector.clone())
            .map(Self)
            .map_err(|error| FieldError::new(path, Value::Null, error))
    }

    /// Whether labels fit the selector.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.matches(labels)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(selector: Value) -> Result<Labels, String> {
        Labels::read(
            "spec.nodeSelector",
            &serde_json::from_value(selector).unwrap(),
        )
        .map_err(|error| error.to_string())
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn every_part_must_fit() {
        let selector = read(json!({
            "matchLabels": {"zone": "a"},
            "matchExpressions": [
                {"key": "rack", "operator": "In", "values": ["1", "2"]},
                {"key": "edge", "operator": "DoesNotExist"},
                {"key": "arch", "operator": "NotIn", "values": ["arm"]},
            ],
        }))
        .unwrap();
        assert!(selector.matches(&labels(&[("zone", "a"), ("rack", "1")])));
        assert!(!selector.matches(&labels(&[("zone", "b"), ("rack", "1")])));
        assert!(!selector.matches(&labels(&[("zone", "a"), ("rack", "3")])));
        assert!(!selector.matches(&labels(&[("zone", "a"), ("rack", "1"), ("edge", "")])));
        assert!(!selector.matches(&labels(&[("zone", "a"), ("rack", "1"), ("arch", "arm")])));
    }

    #[test]
    fn the_empty_selector_fits_all() {
        assert!(read(json!({})).unwrap().matches(&BTreeMap::new()));
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        assert_eq!(
            read(json!({"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]})),
            Err(
                "spec.nodeSelector.matchExpressions[0].operator: \"Like\" must be In, NotIn, Exists or DoesNotExist"
                    .to_owned()
            )
        );
        assert_eq!(
            read(json!({"matchExpressions": [{"key": "a", "operator": "In"}]})),
            Err(
                "spec.nodeSelector.matchExpressions[0].values: must list at least one value for In"
                    .to_owned()
            )
        );
    }
}
