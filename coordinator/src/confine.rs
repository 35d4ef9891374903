//! Which folders submitted jobs may name.
//!
//! A job runs with the rights of the coordinator, so what it reads and writes is confined to the folders that whoever
//! started the coordinator allowed. Links are followed before it is decided, and the job is given what they lead to.

use std::path::{Component, Path, PathBuf};

use thiserror::Error;

/// Why a path is not taken.
#[derive(Debug, Error)]
pub(crate) enum Escape {
    /// It climbs.
    #[error("{field}: {} has `..` in it; write the folder itself", path.display())]
    Climbs {
        /// Field of the spec.
        field: String,
        /// What it says.
        path: PathBuf,
    },
    /// It leads elsewhere.
    #[error("{field}: {} is outside of {}; jobs of this coordinator stay in there (--root, --allow-path)", path.display(), roots(allowed))]
    Outside {
        /// Field of the spec.
        field: String,
        /// Where it leads.
        path: PathBuf,
        /// Where it may lead.
        allowed: Vec<PathBuf>,
    },
    /// It cannot be followed.
    #[error("{field}: {}: {source}", path.display())]
    Io {
        /// Field of the spec.
        field: String,
        /// What it says.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

fn roots(allowed: &[PathBuf]) -> String {
    allowed.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The path with all links followed, as far as it is there: what is not there yet holds no link.
fn followed(path: &Path) -> std::io::Result<PathBuf> {
    let mut there = path;
    let mut missing = Vec::new();
    loop {
        // `symlink_metadata` and not `exists`: a link that leads nowhere would be followed later, by whoever writes.
        match there.symlink_metadata() {
            Ok(_) => break,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else { break };
        missing.push(name);
        there = parent;
    }
    let mut whole = there.canonicalize()?;
    whole.extend(missing.into_iter().rev());
    Ok(whole)
}

/// Where the path of a field leads, if that is in one of the allowed folders.
///
/// # Errors
/// When it has `..` in it, leads outside of all of them, or cannot be followed.
pub(crate) fn confine(field: &str, path: &Path, allowed: &[PathBuf]) -> Result<PathBuf, Escape> {
    let (field, given) = (field.to_owned(), path.to_owned());
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Escape::Climbs { field, path: given });
    }
    let io = |source| Escape::Io { field: field.clone(), path: given.clone(), source };
    let led = followed(path).map_err(io)?;
    // A root may itself be reached through a link.
    let inside = allowed.iter().filter_map(|root| root.canonicalize().ok()).any(|root| led.starts_with(root));
    if inside { Ok(led) } else { Err(Escape::Outside { field, path: led, allowed: allowed.to_vec() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    struct World {
        _folder: tempfile::TempDir,
        root: PathBuf,
        outside: PathBuf,
    }

    fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let (root, outside) = (base.join("root"), base.join("outside"));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        World { root, outside, _folder: folder }
    }

    #[test]
    fn what_is_inside_is_given_as_it_is() {
        let world = world();
        let allowed = [world.root.clone()];
        for path in ["a/b", "a/new/deeper", "x", ""] {
            let path = world.root.join(path);
            assert_eq!(
                confine("output_dir", &path, &allowed).unwrap(),
                path.components().collect::<PathBuf>()
            );
        }
    }

    #[test]
    fn what_leads_out_is_refused_with_field_and_root() {
        let world = world();
        let allowed = [world.root.clone()];
        symlink(&world.outside, world.root.join("link")).unwrap();
        symlink(world.outside.join("none"), world.root.join("dangling")).unwrap();
        symlink("loop", world.root.join("loop")).unwrap();
        let sibling = PathBuf::from(format!("{}-sibling", world.root.display()));
        for path in ["link", "link/x", "a/../../outside", "dangling", "dangling/x", "loop/x"] {
            let refused = confine("data.train", &world.root.join(path), &allowed).unwrap_err().to_string();
            assert!(refused.starts_with("data.train: "), "{path}: {refused}");
        }
        for path in [Path::new("/etc/passwd"), &world.outside, &sibling] {
            let refused = confine("model", path, &allowed).unwrap_err().to_string();
            assert!(refused.contains(&world.root.display().to_string()), "{refused}");
        }
        assert!(confine("model", &world.outside, &[world.root.clone(), world.outside.clone()]).is_ok());
    }

    #[test]
    fn a_link_within_is_followed_and_a_root_may_be_one() {
        let world = world();
        symlink(world.root.join("a"), world.root.join("short")).unwrap();
        symlink(&world.root, world.outside.join("way")).unwrap();
        let led = confine("model", &world.root.join("short/b"), &[world.outside.join("way")]).unwrap();
        assert_eq!(led, world.root.join("a/b"));
    }

    proptest! {
        #[test]
        fn nothing_that_passes_is_outside(parts in prop::collection::vec("(\\.|\\.\\.|a|b|link|up|//|/etc)", 0..6)) {
            let world = world();
            symlink(&world.outside, world.root.join("link")).unwrap();
            symlink("..", world.root.join("up")).unwrap();
            if let Ok(led) = confine("x", &world.root.join(parts.join("/")), std::slice::from_ref(&world.root)) {
                prop_assert!(led.starts_with(&world.root), "{}", led.display());
            }
        }
    }
}
