//! The product as users run it: three real nodes, the chart installed by helm with our images, a router, a client.

mod journey;
mod main_job;
mod nodes;
mod quickstart;
mod rules;
