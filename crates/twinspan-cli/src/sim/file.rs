//! Scenario files: which scenario, with what sizes and faults.

use std::path::Path;

use twinspan_admission::settings::{Document, SettingsError};
use twinspan_core::link::FaultKind;
use twinspan_sim::plan::{FAULTS_RECORDED_MAX, Fault};
use twinspan_sim::scenario::{Case, Scenario};
use twinspan_sim::swarm::Options;
use twinspan_sim::{Rates, is_planned};

use super::planned::scenario;
use crate::args::PlannedName;
use crate::settings_file::{self, SettingsFileError};

/// The scenarios by name.
const SCENARIOS: &[(&str, PlannedName)] = &[
    ("echo", PlannedName::Echo),
    ("partition", PlannedName::Partition),
    ("vault", PlannedName::Vault),
    ("board", PlannedName::Board),
    #[cfg(target_os = "linux")]
    ("hub", PlannedName::Hub),
    ("world", PlannedName::World),
    ("circuit", PlannedName::Circuit),
    ("planted", PlannedName::Planted),
];

/// Reads a scenario file.
///
/// # Errors
/// [`SettingsFileError`] names the file, the line and the nearest right word.
pub(super) fn read(path: &Path) -> Result<(PlannedName, Case), SettingsFileError> {
    settings_file::read(path, parse)
}

/// Reads the text of a scenario file.
fn parse(text: &str) -> Result<(PlannedName, Case), SettingsError> {
    let document = Document::parse(text)?;
    let root = document.root();
    root.allow(&["scenario", "seed", "sizes", "faults", "strikes"])?;
    let name = root.require("scenario", root.choice("scenario", SCENARIOS)?)?;
    let seed = root.whole("seed", 0..=u64::MAX)?.unwrap_or(1);
    let (scenario, _) = scenario(name);
    let mut options = Options::plain(seed);
    if let Some(table) = root.table("sizes")? {
        let known = sizes(scenario);
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        table.allow(&known)?;
        for key in known {
            if let Some(value) = table.whole(key, 0..=u64::MAX)? {
                options = options.with_size(key, value);
            }
        }
    }
    let mut rates = Rates::new();
    if let Some(table) = root.table("faults")? {
        let kinds: Vec<_> = FaultKind::ALL.into_iter().filter(|kind| is_planned(*kind)).collect();
        let known: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        table.allow(&known)?;
        for kind in kinds {
            if let Some(rate) = table.number(kind.name(), 0.0..=1.0)? {
                rates = rates.with(kind, rate);
            }
        }
    }
    let read = |line: &str| {
        line.parse::<Fault>()
            .map_err(|error| root.error_at("strikes", format!("{line:?}: {error}")))
    };
    let lines = root.texts("strikes", FAULTS_RECORDED_MAX)?;
    let strikes = lines.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if !strikes.is_empty() && rates.iter().next().is_some() {
        let what = "`strikes` names faults one by one and `[faults]` says how likely each is; \
                    leave one of them out";
        return Err(root.error_at("strikes", what));
    }
    let faults = (!strikes.is_empty()).then_some(strikes);
    Ok((name, Case { options: options.with_rates(rates), faults }))
}

/// The sizes that a scenario asks for: those of a run.
fn sizes(scenario: &dyn Scenario) -> Vec<String> {
    let verdict = scenario.play(&Case { options: Options::plain(1), faults: None });
    let parts = verdict.options.split(' ').filter_map(|part| part.split_once('='));
    parts.map(|(key, _)| key.to_owned()).filter(|key| key != "seed").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_which_run_it_is() {
        let text = "scenario = \"echo\"\nseed = 7\n[sizes]\nclients = 3\ndelay_us = 900\n\
                    [faults]\nloss = 0.05\ncrash = 0.01\n";
        let (name, case) = parse(text).unwrap();
        assert_eq!(name, PlannedName::Echo);
        assert_eq!(case.options.to_string(), "seed=7 loss=0.05 crash=0.01 clients=3 delay_us=900");
        assert_eq!(case.faults, None);
        let text = "scenario = \"partition\"\nstrikes = [\"pause 3 10.0.2.1\"]\n";
        let (_, case) = parse(text).unwrap();
        assert_eq!(case.faults.unwrap()[0].to_string(), "pause 3 10.0.2.1");
    }

    #[test]
    fn errors_name_the_line_and_the_nearest_key() {
        let wrong = [
            ("", "line 1: key `scenario` is missing here; add it"),
            ("scenario = \"eko\"\n", "did you mean `echo`?"),
            ("scenario = \"echo\"\nsed = 1\n", "line 2: unknown key `sed`; did you mean `seed`?"),
            (
                "scenario = \"echo\"\n[faults]\nlos = 0.1\n",
                "line 3: unknown key `los`; did you mean `loss`?",
            ),
            ("scenario = \"echo\"\n[faults]\nloss = 2\n", "line 3: `loss` is 2"),
            (
                "scenario = \"echo\"\n[sizes]\ncleints = 2\n",
                "line 3: unknown key `cleints`; did you mean `clients`?",
            ),
            (
                "scenario = \"echo\"\nstrikes = [\"los 1 *\"]\n",
                "no fault is called \"los\"; the nearest is \"loss\"",
            ),
            (
                "scenario = \"echo\"\nstrikes = [\"pause 1 10.0.0.1\"]\n[faults]\nloss = 1\n",
                "leave one of them out",
            ),
            ("scenario = \n", "line 1"),
        ];
        for (text, message) in wrong {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text:?}: {error}");
        }
    }
}
