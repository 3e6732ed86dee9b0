//! One table of ratios from the JSON lines of several runs.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

/// The median of a figure over runs.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints a row for each library and number of players: the median of its runs, and its ratio to ours.
pub fn print(files: &[PathBuf]) -> Result<()> {
    let mut rows: Vec<((String, u64), Vec<Value>)> = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let run: Value = serde_json::from_str(line)?;
            let library = run["library"].as_str().unwrap_or("twinspan").to_owned();
            // Ours says how many it was asked for; which side broke, if one did, stands for `held`.
            let players = run["players"].as_u64().or_else(|| run["players_requested"].as_u64());
            let key = (library, players.unwrap_or(0));
            match rows.iter_mut().find(|(k, _)| *k == key) {
                Some((_, runs)) => runs.push(run),
                None => rows.push((key, vec![run])),
            }
        }
    }
    let figure = |runs: &[Value], name: &str| {
        median(runs.iter().filter_map(|run| run[name].as_f64()).collect())
    };
    println!(
        "| library | players | runs | held | CPU us/client-s | ratio to twinspan | up p99 ms | down p99 ms | bytes/connection |"
    );
    println!("|---|--:|--:|---|--:|--:|--:|--:|--:|");
    for ((library, players), runs) in &rows {
        let ours = rows.iter().find(|((name, n), _)| name == "twinspan" && n == players);
        let cpu = figure(runs, "server_cpu_us_per_client_second");
        let ratio = ours
            .map_or(f64::NAN, |(_, ours)| cpu / figure(ours, "server_cpu_us_per_client_second"));
        let held =
            runs.iter().filter(|run| run["held"] == true || run["broke_first"] == "nobody").count();
        println!(
            "| {library} | {players} | {} | {held} | {cpu:.0} | {ratio:.2} | {:.2} | {:.2} | {:.0} |",
            runs.len(),
            figure(runs, "up_p99_ms"),
            figure(runs, "down_p99_ms"),
            figure(runs, "memory_per_connection_bytes"),
        );
    }
    Ok(())
}
