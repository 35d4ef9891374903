//! What a user has to show, and whom they trust: from files and the environment.

use std::fs;
use std::path::Path;

use squad_coordinator::check_private;
use squad_proto::connect::Trust;

use crate::cli::ServerArgs;
use crate::fault::BadUsage;

/// The variable that holds a token.
const TOKEN: &str = "SQUADCTL_TOKEN";

fn read(flag: &str, path: &Path) -> Result<String, BadUsage> {
    fs::read_to_string(path).map_err(|error| BadUsage(format!("{flag} {}: {error}", path.display())))
}

/// A file that only the user can read.
fn read_private(flag: &str, path: &Path) -> Result<String, BadUsage> {
    check_private(path).map_err(|error| BadUsage(format!("{flag} {}: {error}", path.display())))?;
    read(flag, path)
}

/// Certificates of the flags.
pub(crate) fn trust(server: &ServerArgs) -> Result<Trust, BadUsage> {
    let certificates = server.ca.as_deref().map(|path| read("--ca", path)).transpose()?;
    let identity = match (&server.cert, &server.key) {
        (Some(certificate), Some(key)) => Some((read("--cert", certificate)?, read_private("--key", key)?)),
        _ => None,
    };
    Ok(Trust { certificates, identity })
}

/// The token: of the variable, else of the file, else none.
pub(crate) fn token(server: &ServerArgs) -> Result<Option<String>, BadUsage> {
    let given = match std::env::var(TOKEN) {
        Ok(token) => Some(token),
        Err(std::env::VarError::NotPresent) => None,
        Err(error) => return Err(BadUsage(format!("{TOKEN}: {error}"))),
    };
    let token = match (given.filter(|token| !token.is_empty()), &server.token_file) {
        (Some(token), _) => token,
        (None, Some(path)) => read_private("--token-file", path)?,
        (None, None) => return Ok(None),
    };
    Ok(Some(token.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn server(token_file: &Path) -> ServerArgs {
        ServerArgs {
            server: "https://train.example:1".into(),
            ca: None,
            cert: None,
            key: None,
            token_file: Some(token_file.to_owned()),
        }
    }

    #[test]
    fn a_token_is_read_from_a_file_of_ones_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "squad_12\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = token(&server(&path)).unwrap_err().to_string();
        assert!(refused.contains("--token-file") && refused.contains("chmod 600"), "{refused}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(token(&server(&path)).unwrap().as_deref(), Some("squad_12"));
        assert!(token(&server(&folder.path().join("none"))).is_err());
    }
}
