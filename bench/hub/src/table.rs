//! One table of ratios from the lines of several runs.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// What one library did in one row: the runs.
struct Cell {
    library: String,
    runs: Vec<Value>,
}

struct Row {
    name: String,
    target: String,
    cells: Vec<Cell>,
}

/// The median of a figure over runs.
fn median(runs: &[Value], name: &str) -> Option<f64> {
    let mut values: Vec<f64> = runs.iter().filter_map(|run| run[name].as_f64()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A figure as people read it.
fn shown(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn rows(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut rows: Vec<Row> = Vec::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let note: Value = serde_json::from_str(line)?;
        let word = |name: &str| note[name].as_str().unwrap_or_default().to_owned();
        let (name, library) = (word("row"), word("library"));
        let at = match rows.iter().position(|row| row.name == name) {
            Some(at) => at,
            None => {
                rows.push(Row { name, target: word("target"), cells: Vec::new() });
                rows.len() - 1
            }
        };
        let Some(row) = rows.get_mut(at) else { continue };
        let run = note["run"].clone();
        match row.cells.iter_mut().find(|cell| cell.library == library) {
            Some(cell) => cell.runs.push(run),
            None => row.cells.push(Cell { library, runs: vec![run] }),
        }
    }
    Ok(rows)
}

/// How a cell is told: the figure, and ours over theirs.
fn told(cell: &Cell, ours: Option<&Cell>) -> String {
    let p50 = median(&cell.runs, "one_way_p50_ns");
    let (name, unit, scale) = match p50 {
        Some(_) => ("one_way_p50_ns", "µs", 1e3),
        None if median(&cell.runs, "size_bytes").unwrap_or(0.0) >= 4_096.0 => {
            ("gbit_per_second", "Gbit/s", 1.0)
        }
        None => ("messages_per_second", "M/s", 1e6),
    };
    let Some(value) = median(&cell.runs, name) else { return "–".to_owned() };
    let mut text = format!("{} {unit}", shown(value / scale));
    if let Some(p99) = median(&cell.runs, "one_way_p99_ns") {
        text += &format!(" (p99 {})", shown(p99 / scale));
    }
    if let Some(ours) = ours.and_then(|ours| median(&ours.runs, name)) {
        text += &format!("; ours {} ×", shown(ours / value));
    }
    let lost = median(&cell.runs, "lost").unwrap_or(0.0);
    if lost > 0.0 {
        text += &format!("; {lost} lost");
    }
    text
}

/// Prints a line for each row: ours, our ratio to the floor, and each library with ours over theirs.
pub fn print(path: &Path) -> Result<()> {
    println!("| what | target | twinspan | of the floor | beside it |");
    println!("|---|---|---|---|---|");
    let mut foreign: Vec<f64> = Vec::new();
    for row in rows(path)? {
        let ours = row.cells.iter().find(|cell| cell.library == "twinspan");
        let (mut figure, mut floor) = ("–".to_owned(), "–".to_owned());
        if let Some(cell) = ours {
            figure = told(cell, None);
            if cell.runs.iter().any(|run| run["mode"] == "idle") {
                let share = median(&cell.runs, "cpu_subscriber").unwrap_or(0.0) * 100.0;
                figure = format!("{share:.3} % of a core");
            }
            if let Some(early) = median(&cell.runs, "first_answer_zero_rtt_ms") {
                let saved = median(&cell.runs, "round_trips_saved").unwrap_or(0.0);
                figure = format!("{} ms; {} round trips earlier", shown(early), shown(saved));
            }
            if let Some(ratio) = median(&cell.runs, "ratio_to_floor").filter(|ratio| *ratio > 0.0) {
                floor = format!("{ratio:.2}");
            }
            if cell.runs.iter().any(|run| run["floor_defective"] == true) {
                floor += " (defective)";
            }
            if let Some(allocations) = median(&cell.runs, "allocations_in_steady_state")
                && allocations > 0.0
            {
                figure += &format!("; {allocations} allocations");
            }
        }
        let others = row.cells.iter().filter(|cell| cell.library != "twinspan");
        let others: Vec<String> =
            others.map(|cell| format!("{} {}", cell.library, told(cell, ours))).collect();
        println!(
            "| {} | {} | {figure} | {floor} | {} |",
            row.name,
            row.target,
            others.join("<br>")
        );
        let runs = row.cells.iter().flat_map(|cell| &cell.runs);
        foreign.extend(runs.filter_map(|run| run["foreign_cpu"].as_f64()));
    }
    foreign.sort_by(f64::total_cmp);
    let most = foreign.last().copied().unwrap_or(0.0);
    let middle = foreign.get(foreign.len() / 2).copied().unwrap_or(0.0);
    println!(
        "\nOther programs used {middle:.2} cores in the median run, {most:.2} in the worst: above 0.25 the figures \
         are bearings, and the ratios worth more than they."
    );
    Ok(())
}
