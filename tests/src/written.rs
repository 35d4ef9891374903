//! Commands that pages for people show, as a shell would cut them into words.
//!
//! Nothing but the standard library: the tests of each program include this file, to hold the commands against
//! the program's own parser.
#![allow(dead_code, unreachable_pub, reason = "included in several crates, none of which needs all of it")]

use std::path::{Path, PathBuf};

/// The programs of this project.
pub const PROGRAMS: [&str; 3] = ["squadctl", "squad-coordinator", "squad-worker"];

/// Programs that start others: what comes behind them may be one of ours.
const LAUNCHERS: [&str; 4] = ["mpirun", "srun", "env", "exec"];

/// A fenced block of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the opening fence: `sh`, `yaml`, or nothing.
    pub language: String,
    /// The number of its first line.
    pub line: usize,
    /// Its lines.
    pub text: String,
}

/// A command, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The page.
    pub page: PathBuf,
    /// The line in it, from 1.
    pub line: usize,
    /// Its words, without redirections and variables in front.
    pub words: Vec<String>,
    /// Whether it stands in a block, ready to be pasted: then nothing may be missing.
    pub whole: bool,
}

impl Written {
    /// Which of our programs is started, and its arguments.
    pub fn ours(&self) -> Option<(&'static str, &[String])> {
        let first = self.words.first()?;
        let at = match first.as_str() {
            "kubectl" => self.words.iter().position(|word| word == "--")? + 1,
            first if LAUNCHERS.contains(&first) => {
                self.words.iter().position(|word| program(word).is_some())?
            }
            _ => 0,
        };
        Some((program(self.words.get(at)?)?, &self.words[at + 1..]))
    }
}

/// Which of our programs a word names, with or without its folder.
fn program(word: &str) -> Option<&'static str> {
    let name = word.rsplit('/').next().unwrap_or(word);
    PROGRAMS.into_iter().find(|program| *program == name)
}

/// All pages for people.
pub fn pages(repository: &Path) -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = Vec::new();
    for folder in [".", "docs", "proto/codes", "examples/quickstart"] {
        let entries = std::fs::read_dir(repository.join(folder)).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path());
        pages.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    pages.sort();
    pages
}

/// Every command of every page.
pub fn commands(repository: &Path) -> Vec<Written> {
    let mut found = Vec::new();
    for page in pages(repository) {
        let text = std::fs::read_to_string(&page).unwrap_or_default();
        let (blocks, rest) = blocks(&text);
        for block in blocks.iter().filter(|block| ["", "sh", "bash"].contains(&block.language.as_str())) {
            for (line, words) in split(&block.text) {
                found.push(Written { page: page.clone(), line: block.line + line, words, whole: true });
            }
        }
        for (number, code) in inline(&rest) {
            for (_, words) in split(&code.replace('\n', " ")) {
                let command = Written { page: page.clone(), line: number, words, whole: false };
                // Else it is a field, a file, or some other program's.
                if command.ours().is_some() {
                    found.push(command);
                }
            }
        }
    }
    found
}

/// The fenced blocks of a page; and the page with their lines blank.
pub fn blocks(text: &str) -> (Vec<Block>, String) {
    let (mut blocks, mut rest, mut open) = (Vec::new(), String::new(), None::<Block>);
    for (number, line) in (1..).zip(text.lines()) {
        match (line.trim_start().strip_prefix("```"), open.as_mut()) {
            (Some(language), None) => {
                let language = language.trim().to_owned();
                open = Some(Block { language, line: number + 1, text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text += line;
                block.text.push('\n');
            }
            (None, None) => rest += line,
        }
        rest.push('\n');
    }
    (blocks, rest)
}

/// What stands between backticks outside of blocks, with its line. A backtick that is not closed in its
/// paragraph is none.
fn inline(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut line = 1;
    for paragraph in text.split("\n\n") {
        let mut at = line;
        let closed = paragraph.matches('`').count() / 2 * 2;
        for (number, part) in paragraph.split('`').enumerate() {
            if number % 2 == 1 && number < closed {
                found.push((at, part.to_owned()));
            }
            at += part.matches('\n').count();
        }
        line += paragraph.matches('\n').count() + 2;
    }
    found
}

/// Cuts a script into commands, each with the number of its line from 0.
pub fn split(script: &str) -> Vec<(usize, Vec<String>)> {
    let mut lexer = Lexer { rest: script.chars().peekable(), ..Lexer::default() };
    lexer.run();
    lexer.commands
}

type Letters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// As much of a shell's grammar as pages use.
struct Lexer<'a> {
    rest: Letters<'a>,
    commands: Vec<(usize, Vec<String>)>,
    words: Vec<String>,
    word: Option<String>,
    /// The next word is the file of a redirection.
    redirected: bool,
    /// The next word is the delimiter of a here-document.
    document: bool,
    /// Delimiters of the here-documents that begin on the next line.
    documents: Vec<String>,
    line: usize,
    begun: usize,
}

impl Default for Lexer<'_> {
    fn default() -> Self {
        Self {
            rest: "".chars().peekable(),
            commands: Vec::new(),
            words: Vec::new(),
            word: None,
            redirected: false,
            document: false,
            documents: Vec::new(),
            line: 0,
            begun: 0,
        }
    }
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(letter) = self.next() {
            match letter {
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(letter) => self.push(letter),
                },
                '\'' => self.quoted('\''),
                '"' => self.quoted('"'),
                '$' if self.rest.peek() == Some(&'(') => self.substitution(),
                '#' if self.word.is_none() => while self.rest.next_if(|c| *c != '\n').is_some() {},
                '<' | '>' => self.redirection(letter),
                ' ' | '\t' => self.end_word(),
                ';' | '&' | '|' | '(' | ')' => self.end_command(),
                '\n' => {
                    self.end_command();
                    self.skip_documents();
                }
                letter => self.push(letter),
            }
        }
        self.end_command();
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.rest.next()?;
        self.line += usize::from(letter == '\n');
        Some(letter)
    }

    fn push(&mut self, letter: char) {
        if self.words.is_empty() && self.word.is_none() {
            self.begun = self.line;
        }
        self.word.get_or_insert_default().push(letter);
    }

    fn quoted(&mut self, quote: char) {
        let begun = self.line;
        if self.words.is_empty() && self.word.is_none() {
            self.begun = begun;
        }
        let mut inside = self.word.take().unwrap_or_default();
        while let Some(letter) = self.next() {
            match letter {
                letter if letter == quote => break,
                '\\' if quote == '"' => inside.extend(self.next()),
                letter => inside.push(letter),
            }
        }
        self.word = Some(inside);
    }

    /// `$(...)` is one letter of a word: what it becomes is not known.
    fn substitution(&mut self) {
        let mut depth = 0;
        while let Some(letter) = self.next() {
            match letter {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        self.push('$');
    }

    fn redirection(&mut self, sign: char) {
        // The number of a stream, as in 2>file, is no word of the command.
        if self.word.as_ref().is_some_and(|word| word.chars().all(|c| c.is_ascii_digit())) {
            self.word = None;
        }
        self.end_word();
        let mut signs = 1;
        while self.rest.next_if_eq(&sign).is_some() {
            signs += 1;
        }
        (self.redirected, self.document) = (true, sign == '<' && signs == 2);
        // As in 2>&1.
        self.rest.next_if_eq(&'&');
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        match (std::mem::take(&mut self.redirected), std::mem::take(&mut self.document)) {
            (true, true) => self.documents.push(word),
            (true, false) => {}
            _ => self.words.push(word),
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        let assignments = self.words.iter().take_while(|word| is_assignment(word)).count();
        let words: Vec<String> = std::mem::take(&mut self.words).split_off(assignments);
        if !words.is_empty() {
            self.commands.push((self.begun, words));
        }
    }

    fn skip_documents(&mut self) {
        for delimiter in std::mem::take(&mut self.documents) {
            loop {
                let mut line = String::new();
                let mut ended = true;
                while let Some(letter) = self.next() {
                    if letter == '\n' {
                        ended = false;
                        break;
                    }
                    line.push(letter);
                }
                if ended || line.trim() == delimiter {
                    break;
                }
            }
        }
    }
}

/// `NAME=value` in front of a command.
fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(script: &str) -> Vec<String> {
        split(script).into_iter().map(|(line, words)| format!("{line} {}", words.join("|"))).collect()
    }

    #[test]
    fn scripts_are_cut_as_a_shell_cuts_them() {
        for (script, commands) in [
            ("a b  c", &["0 a|b|c"][..]),
            ("a 'b c' \"d \\\" e\"f # g", &["0 a|b c|d \" ef"]),
            ("a \\\n  b\nc", &["0 a|b", "2 c"]),
            ("A=1 B_2=x a; b & c | d && (e)", &["0 a", "0 b", "0 c", "0 d", "0 e"]),
            ("a 2>f <g >>h b 2>&1", &["0 a|b"]),
            ("a <<'END' >f\nb c\nEND\nd", &["0 a", "3 d"]),
            ("a \"$(b c)\" --d=$(e (f))x g", &["0 a|$(b c)|--d=$x|g"]),
            ("a ''", &["0 a|"]),
        ] {
            assert_eq!(words(script), commands, "{script}");
        }
    }

    #[test]
    fn blocks_and_what_is_between_them() {
        let text = "one `a\nb`\n```sh\nc `d`\n```\n\n`e` ` open\n\n`f`\n";
        let (found, rest) = blocks(text);
        assert_eq!(found, [Block { language: "sh".into(), line: 4, text: "c `d`\n".into() }]);
        assert_eq!(inline(&rest), [(1, "a\nb".into()), (7, "e".into()), (9, "f".into())]);
    }

    #[test]
    fn our_programs_are_found_behind_launchers() {
        let ours = |line: &str| {
            let (_, words) = split(line).remove(0);
            let command = Written { page: PathBuf::new(), line: 1, words, whole: true };
            command.ours().map(|(program, arguments)| format!("{program} {}", arguments.join(" ")))
        };
        for (line, expected) in [
            ("target/release/squadctl run a", Some("squadctl run a")),
            ("mpirun -np 2 squad-worker join", Some("squad-worker join")),
            ("kubectl exec deployment/squad-coordinator -- squadctl list", Some("squadctl list")),
            ("kubectl rollout status deployment/squad-coordinator", None),
            ("cargo build -p squadctl", None),
        ] {
            assert_eq!(ours(line).as_deref(), expected, "{line}");
        }
    }
}
