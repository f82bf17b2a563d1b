//! One Eip review, from bytes to answer, with few and many other Eips: the look-up must not feel the difference.

use std::{hint::black_box, sync::Arc};

use openelb_api::{
    v1alpha2::{Eip, EipSpec},
    validate::{EipFacts, View},
};
use openelb_webhook::{admit::Admission, review::Phase, server::routes::review, view::Known};
use serde_json::json;

fn main() {
    divan::main();
}

fn admission(eips: usize) -> Admission {
    let mut view = View::default();
    view.change_eips(|known| {
        for number in 0..eips {
            let address = format!("10.{}.{}.0/24", number / 256, number % 256);
            let name = format!("eip-{number}");
            let eip = Eip::new(
                &name,
                EipSpec {
                    address,
                    ..EipSpec::default()
                },
            );
            if let Ok(facts) = EipFacts::try_from(&eip) {
                known.insert(name, Arc::new(facts));
            }
        }
    });
    let known = Known::default();
    known.publish(view);
    Admission {
        known,
        inject: true,
        address_writers: Vec::new(),
    }
}

fn question(address: &str) -> Vec<u8> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "name": "new",
            "kind": { "group": "network.kubesphere.io", "version": "v1alpha2", "kind": "Eip" },
            "object": {
                "metadata": { "name": "new" },
                "spec": { "address": address, "protocol": "bgp", "namespaces": ["default"] },
            },
        },
    });
    review.to_string().into_bytes()
}

#[divan::bench(args = [10, 1_000, 10_000])]
fn accepted(bencher: divan::Bencher<'_, '_>, eips: usize) {
    let (admission, question) = (admission(eips), question("192.168.0.0/24"));
    bencher
        .bench(|| review(&admission, Phase::Validate, black_box(&question)).map(|answer| answer.0));
}

#[divan::bench(args = [10, 1_000, 10_000])]
fn refused(bencher: divan::Bencher<'_, '_>, eips: usize) {
    let (admission, question) = (admission(eips), question("10.0.5.128/25"));
    bencher
        .bench(|| review(&admission, Phase::Validate, black_box(&question)).map(|answer| answer.0));
}

#[divan::bench(args = [10, 1_000, 10_000])]
fn completed(bencher: divan::Bencher<'_, '_>, eips: usize) {
    let (admission, question) = (admission(eips), question("192.168.0.0/24"));
    bencher
        .bench(|| review(&admission, Phase::Mutate, black_box(&question)).map(|answer| answer.0));
}
