//! The page's files, which are part of the program.

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::api;

macro_rules! files {
    ($($name:literal: $form:literal,)+) => {
        /// Name, media type and content.
        const FILES: &[(&str, &str, &str)] = &[$(($name, $form, include_str!(concat!("assets/", $name)))),+];
    };
}

files! {
    "app.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "curve.js": "text/javascript; charset=utf-8",
    "ask.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "failure.js": "text/javascript; charset=utf-8",
    "figures.js": "text/javascript; charset=utf-8",
    "job.js": "text/javascript; charset=utf-8",
    "jobs.js": "text/javascript; charset=utf-8",
    "login.js": "text/javascript; charset=utf-8",
    "logs.js": "text/javascript; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "plot.js": "text/javascript; charset=utf-8",
    "results.js": "text/javascript; charset=utf-8",
    "scale.js": "text/javascript; charset=utf-8",
    "server.js": "text/javascript; charset=utf-8",
}

/// `GET /`.
pub(super) async fn index() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], include_str!("assets/index.html"))
}

/// `GET /assets/NAME`.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, form, content)) => ([(header::CONTENT_TYPE, *form)], *content).into_response(),
        None => api::nothing().await.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::FILES;

    #[test]
    fn every_file_of_the_folder_is_served_and_asked_for() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web/assets");
        let there: BTreeSet<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "index.html")
            .collect();
        let served: BTreeSet<String> = FILES.iter().map(|(name, ..)| (*name).to_owned()).collect();
        assert_eq!(served, there);
        let page = std::fs::read_to_string(folder.join("index.html")).unwrap();
        let texts = FILES.iter().map(|(_, _, content)| *content).chain([page.as_str()]);
        let asked: BTreeSet<String> = texts
            .flat_map(|text| text.split('"'))
            .filter_map(|word| word.strip_prefix("./").or(word.strip_prefix("/assets/")))
            .map(str::to_owned)
            .collect();
        assert_eq!(asked, served);
    }

    #[test]
    fn data_never_becomes_markup() {
        for (name, _, content) in FILES.iter().filter(|(name, ..)| name.ends_with(".js")) {
            for word in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http:", "https:"]
            {
                let namespace = content.matches("http://www.w3.org/2000/svg").count();
                let found = content.matches(word).count() - if word == "http:" { namespace } else { 0 };
                assert_eq!(found, 0, "{name} has {word}");
            }
        }
    }
}
