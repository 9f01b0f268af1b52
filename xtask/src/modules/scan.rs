//! Finds the paths that a Rust source names. It works on tokens, not on syntax, because a syntax
//! tree ends where a macro's arguments begin.

use std::{iter::Peekable, vec::IntoIter};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A path that a source names, or the keyword `unsafe` as a path of its own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mention {
    /// The path's segments. Those into the crate itself begin with `crate`, however they were
    /// written; a glob ends with `*`.
    pub(super) path: Vec<String>,
    /// Counted from 1.
    pub(super) line: usize,
}

type Tokens = Peekable<IntoIter<TokenTree>>;

/// The paths of at least two segments, and all imports, in the source of `module`.
pub(super) fn mentions(module: &[String], source: &str) -> Result<Vec<Mention>, String> {
    let stream: TokenStream = source
        .parse()
        .map_err(|error| format!("not the tokens of a Rust file: {error}"))?;
    let mut scan = Scan {
        module: module.to_vec(),
        found: Vec::new(),
    };
    scan.tokens(stream);
    Ok(scan.found)
}

struct Scan {
    /// The module that encloses the tokens at hand.
    module: Vec<String>,
    found: Vec<Mention>,
}

impl Scan {
    fn tokens(&mut self, stream: TokenStream) {
        let mut tokens = tokens(stream);
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(ident) => {
                    let line = ident.span().start().line;
                    match ident.to_string().as_str() {
                        "unsafe" => self.mention(vec!["unsafe".to_owned()], line),
                        "use" => self.import(&mut tokens, &[], line),
                        "mod" => self.module(&mut tokens),
                        first => {
                            let mut path = vec![first.to_owned()];
                            while skip_separator(&mut tokens)
                                && let Some(segment) = ident_text(&mut tokens)
                            {
                                path.push(segment);
                            }
                            if path.len() > 1 {
                                self.mention(path, line);
                            }
                        }
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    /// `mod name;` or `mod name { … }`.
    fn module(&mut self, tokens: &mut Tokens) {
        let Some(name) = ident_text(tokens) else {
            return;
        };
        if let Some(body) = brace(tokens) {
            self.module.push(name);
            self.tokens(body.stream());
            self.module.pop();
        }
    }

    /// One branch of a `use` tree, below `prefix`.
    fn import(&mut self, tokens: &mut Tokens, prefix: &[String], line: usize) {
        let mut path = prefix.to_vec();
        skip_separator(tokens);
        loop {
            if let Some(body) = brace(tokens) {
                let mut branches = self::tokens(body.stream());
                while let Some(token) = branches.peek() {
                    let line = token.span().start().line;
                    self.import(&mut branches, &path, line);
                    // The comma, and before it what `as` renames to.
                    while branches.next().is_some_and(|token| !is(&token, ',')) {}
                }
                return;
            }
            match ident_text(tokens) {
                // `{self, …}` names what the prefix names.
                Some(segment) if segment == "self" && !path.is_empty() => {}
                Some(segment) => path.push(segment),
                None => {
                    if tokens.peek().is_some_and(|token| is(token, '*')) {
                        path.push("*".to_owned());
                    }
                    break;
                }
            }
            if !skip_separator(tokens) {
                break;
            }
        }
        // Empty in `use<'a>`, a bound.
        if !path.is_empty() {
            self.mention(path, line);
        }
    }

    /// Adds a path, resolving `self` and `super`.
    fn mention(&mut self, path: Vec<String>, line: usize) {
        let supers = path
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let path = if supers > 0 {
            let kept = self.module.len().saturating_sub(supers);
            self.inside(kept, &path[supers..])
        } else if path[0] == "self" {
            self.inside(self.module.len(), &path[1..])
        } else {
            path
        };
        self.found.push(Mention { path, line });
    }

    /// A path below the outermost `kept` of the enclosing modules.
    fn inside(&self, kept: usize, rest: &[String]) -> Vec<String> {
        [&["crate".to_owned()], &self.module[..kept], rest].concat()
    }
}

fn tokens(stream: TokenStream) -> Tokens {
    stream
        .into_iter()
        .collect::<Vec<_>>()
        .into_iter()
        .peekable()
}

fn is(token: &TokenTree, punctuation: char) -> bool {
    matches!(token, TokenTree::Punct(found) if found.as_char() == punctuation)
}

/// Takes `::`, if that is next.
fn skip_separator(tokens: &mut Tokens) -> bool {
    // A single colon is followed by what it gives a type to, never by another colon apart.
    let mut colon = || tokens.next_if(|token| is(token, ':')).is_some();
    colon() && colon()
}

/// Takes an identifier, if that is next.
fn ident_text(tokens: &mut Tokens) -> Option<String> {
    match tokens.next_if(|token| matches!(token, TokenTree::Ident(_)))? {
        TokenTree::Ident(ident) => Some(ident.to_string()),
        _ => None,
    }
}

/// Takes a group in braces, if that is next.
fn brace(tokens: &mut Tokens) -> Option<Group> {
    let is_brace = |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
    match tokens.next_if(is_brace)? {
        TokenTree::Group(group) => Some(group),
        _ => None,
    }
}
