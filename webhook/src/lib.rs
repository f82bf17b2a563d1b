//! The admission webhook of openelb-rs: the server, its certificates, and how an AdmissionReview
//! becomes a question to the rules in `openelb_api::validate`.

pub mod admit;
pub mod args;
pub mod certs;
pub mod metrics;
pub mod review;
pub mod run;
pub mod server;
pub mod view;
