//! Which GPUs jobs may use.

use std::path::Path;

use super::BadUsage;

/// Where NVIDIA's driver has a folder for each GPU.
const SHOWN: &str = "/proc/driver/nvidia/gpus";

/// The GPUs that jobs may use, at most `limit` of them, as `CUDA_VISIBLE_DEVICES` names them; `None` where they are not
/// counted.
pub(super) fn offered(limit: Option<u32>) -> Result<Option<Vec<String>>, BadUsage> {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    // The folder is not there where there is no driver.
    let shown = std::fs::read_dir(Path::new(SHOWN)).map_or(0, Iterator::count);
    chosen(limit, visible.as_deref(), shown)
}

fn chosen(limit: Option<u32>, visible: Option<&str>, shown: usize) -> Result<Option<Vec<String>>, BadUsage> {
    let numbers = |count: usize| (0..count).map(|number| number.to_string()).collect();
    let listed = visible.map(|list| {
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(str::to_owned).collect::<Vec<_>>()
    });
    Ok(match (limit, listed) {
        (Some(limit), Some(listed)) if limit as usize > listed.len() => {
            let sentence = format!("--gpus {limit}: CUDA_VISIBLE_DEVICES names only {}", listed.len());
            return Err(BadUsage(sentence));
        }
        (Some(limit), Some(listed)) => Some(listed.into_iter().take(limit as usize).collect()),
        // The driver's folder may be hidden in a container: who says a number knows.
        (Some(limit), None) => Some(numbers(limit as usize)),
        (None, Some(listed)) => Some(listed),
        (None, None) => (shown > 0).then(|| numbers(shown)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(limit: Option<u32>, visible: Option<&str>, shown: usize) -> Option<Vec<String>> {
        chosen(limit, visible, shown).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn gpus_are_those_that_the_driver_shows_or_that_somebody_names() {
        assert_eq!(names(None, None, 0), None, "without a driver they are not counted");
        assert_eq!(names(None, None, 2), Some(vec!["0".into(), "1".into()]));
        assert_eq!(names(None, Some("3, GPU-ab"), 8), Some(vec!["3".into(), "GPU-ab".into()]));
        assert_eq!(names(None, Some(""), 8), Some(Vec::new()));
        assert_eq!(names(Some(1), Some("3,5"), 8), Some(vec!["3".into()]));
        assert_eq!(names(Some(2), None, 0), Some(vec!["0".into(), "1".into()]));
        assert_eq!(names(Some(0), None, 8), Some(Vec::new()));
        let error = chosen(Some(3), Some("3,5"), 8).unwrap_err().to_string();
        assert_eq!(error, "--gpus 3: CUDA_VISIBLE_DEVICES names only 2");
    }
}
