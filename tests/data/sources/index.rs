use std::collections::HashMap;
use std::fmt;

/// Words (and where they are).
#[derive(Debug, Clone, Default)]
pub struct Index<'a> {
    words: HashMap<&'a str, Vec<usize>>,
    limit: Option<u32>,
}

#[derive(Debug)]
pub enum Error {
    Empty,
    TooLong { line: usize, length: usize },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Empty => write!(f, "nothing to read"),
            Error::TooLong { line, length } => write!(f, "line {line} has {} characters", length),
        }
    }
}

impl<'a> Index<'a> {
    pub fn read(text: &'a str) -> Result<Self, Error> {
        let mut index = Index::default();
        for (line, content) in text.lines().enumerate() {
            if content.len() > 1_000 {
                return Err(Error::TooLong { line, length: content.len() });
            }
            for word in content.split(|c: char| !c.is_alphanumeric() || c == '"') {
                index.words.entry(word).or_default().push(line);
            }
        }
        // An index without words isn't useful.
        if index.words.is_empty() { Err(Error::Empty) } else { Ok(index) }
    }

    pub fn find(&self, word: &str) -> &[usize] {
        self.words.get(word).map_or(&[], |lines| &lines[..])
    }
}

fn main() {
    let index = Index::read("a b\n\tc \"d\"").unwrap();
    let raw = r#"a "raw" string"#;
    println!("{:?} {} {}", index.find("a"), raw, vec![1, 2, 3].len());
}
