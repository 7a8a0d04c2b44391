//! What has run, in the protocol's words.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use adjoin_control_api::inference as api;
use adjoin_oip::{Fault, VersionChoice};
use adjoin_schema::descriptor::Rejection;
use adjoin_schema::status::Status;
use adjoin_shm::clock::now_ns;

use super::Oip;
use super::refusal::of_model;
use crate::model::ModelVersion;

fn duration(count: u64, ns: u64) -> Option<api::StatisticDuration> {
    Some(api::StatisticDuration { count, ns })
}

/// Milliseconds since 1970 of a moment on the clock of deadlines; 0 for none.
fn wall_ms(at_ns: u64) -> u64 {
    if at_ns == 0 {
        return 0;
    }
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let ago_ns = now_ns().saturating_sub(at_ns);
    let ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    ms.saturating_sub(ago_ns / 1_000_000)
}

fn of_version(version: &ModelVersion) -> api::ModelStatistics {
    let counted = version.metrics().statistics();
    let requests = counted.request_count;
    let times = counted.times_of_requests;
    let batch = |(rows, sum): (u32, crate::metrics::BatchSum)| api::InferBatchStatistics {
        batch_size: u64::from(rows),
        compute_input: duration(sum.count, sum.times.gather_ns),
        compute_infer: duration(sum.count, sum.times.execute_ns),
        compute_output: duration(sum.count, sum.times.scatter_ns),
    };
    api::ModelStatistics {
        name: version.name().to_string(),
        version: version.version().to_string(),
        last_inference: wall_ms(counted.last_end_ns),
        inference_count: counted.inference_count,
        execution_count: counted.execution_count,
        inference_stats: Some(api::InferStatistics {
            success: duration(
                requests + counted.cache_hits,
                counted.duration_ns + counted.cache_hit_ns,
            ),
            // How long a refusal took is not kept: most take no time to speak of.
            fail: duration(counted.failed_request_count, 0),
            queue: duration(requests, counted.queue_ns),
            compute_input: duration(requests, times.gather_ns),
            compute_infer: duration(requests, times.execute_ns),
            compute_output: duration(requests, times.scatter_ns),
            cache_hit: duration(counted.cache_hits, counted.cache_hit_ns),
            // What a miss costs is within the time of its request.
            cache_miss: duration(counted.cache_misses, 0),
        }),
        batch_stats: counted.executions_by_rows.into_iter().map(batch).collect(),
        ..api::ModelStatistics::default()
    }
}

impl Oip {
    /// Statistics of a model's version, of all its versions, or, without a name, of all models.
    ///
    /// # Errors
    /// If a model or version is named that is not there.
    pub fn statistics(
        &self,
        model: &str,
        version: &VersionChoice,
    ) -> Result<api::ModelStatisticsResponse, Fault> {
        let models = self.engine.models().snapshot();
        let mut versions: Vec<Arc<ModelVersion>> = match (model, version) {
            ("", _) => self.engine.models().all(),
            (_, VersionChoice::Any) => match models.get(model) {
                Some(entry) => entry.versions.values().cloned().collect(),
                None => {
                    let missing = Rejection::from(Status::ModelNotFound);
                    return Err(of_model(missing, model, version));
                }
            },
            _ => {
                let found = self.find(model, version);
                vec![found.map_err(|rejection| of_model(rejection, model, version))?]
            }
        };
        versions.sort_by(|a, b| (a.name(), a.version()).cmp(&(b.name(), b.version())));
        let model_stats = versions.iter().map(|version| of_version(version)).collect();
        Ok(api::ModelStatisticsResponse { model_stats })
    }
}
