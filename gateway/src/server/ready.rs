//! What `/readyz` asks: every part without which the gateway cannot do its work.

use std::sync::Arc;

use groupcast_channel_layer::ChannelLayer;

use crate::auth::issuer::Issuer;
use crate::consumer::Sources;
use crate::health::{Check, Health};
use crate::jobs::Jobs;
use crate::notes::Peers;

/// All of it, by the names that `/readyz` uses.
pub(super) fn health(
    layer: &ChannelLayer,
    jobs: &Jobs,
    sources: &Arc<Sources>,
    peers: &Peers,
    issuer: Option<Arc<Issuer>>,
) -> Health {
    let health = of_stores(layer, jobs, sources).with_check("claims", agree(peers));
    match issuer {
        Some(issuer) => health.with_check("issuer", Arc::new(move || Box::pin(std::future::ready(known(&issuer))))),
        None => health,
    }
}

/// Whether all gateways take the same messages for work.
fn agree(peers: &Peers) -> Check {
    let peers = peers.clone();
    Arc::new(move || Box::pin(std::future::ready(peers.agree())))
}

/// Whether the keys are there that tokens are signed by.
fn known(issuer: &Issuer) -> Result<(), String> {
    let why = "its keys have not been read yet (`jwks_url`, `jwks_file`); the log knows why";
    if issuer.is_known() { Ok(()) } else { Err(why.to_owned()) }
}

fn of_stores(layer: &ChannelLayer, jobs: &Jobs, sources: &Arc<Sources>) -> Health {
    let (layer, jobs, sources) = (layer.clone(), jobs.clone(), sources.clone());
    Health::default()
        .with_check("layer", Arc::new(move || Box::pin(std::future::ready(layer.ready()))))
        .with_check(
            "jobs",
            Arc::new(move || {
                Box::pin({
                    let jobs = jobs.clone();
                    async move { jobs.ready().await }
                })
            }),
        )
        .with_check(
            "sources",
            Arc::new(move || {
                Box::pin({
                    let sources = sources.clone();
                    async move { sources.ready().await }
                })
            }),
        )
}
