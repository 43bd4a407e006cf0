//! No two files of a crate import each other, directly or by way of others, so that each can be read after those that
//! it stands on. What only tests compile may.
//!
//! A module may name what the modules around it define: it is a part of them, and they declare it.

use super::modules::{Modules, attributes, hands_on, is_only_for_tests, leaves};
use super::{Finding, Source};
use anyhow::Result;
use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::{self, Visit};
use syn::{ImplItemFn, Item, ItemUse, Macro};

/// For each file, by index, the files that it imports from, and the names it takes.
type Imports = BTreeMap<usize, BTreeMap<usize, BTreeSet<String>>>;

/// Files that still import each other; the list only ever gets shorter.
const REMAINING: [&str; 7] = [
    "tools/guest/src/apic.rs",
    "tools/guest/src/cpu.rs",
    "tools/guest/src/legacy.rs",
    "tools/guest/src/memory.rs",
    "tools/guest/src/run.rs",
    "tools/guest/src/smp.rs",
    "tools/guest/src/trap.rs",
];

pub(super) fn check(sources: &[Source]) -> Result<Vec<Finding>> {
    check_but(sources, &REMAINING)
}

/// The same, but for circles of files that are all among `remaining`. A file there that is in no circle is a finding.
fn check_but(sources: &[Source], remaining: &[&str]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut met = BTreeSet::new();
    for (index, source) in sources.iter().enumerate() {
        if !is_root(sources, &source.path) {
            continue;
        }
        let imports = imports(&Modules::of_crate(sources, index)?);
        for circle in circles(&imports) {
            let paths = circle.iter().map(|&file| sources[file].path.as_str());
            if !paths.clone().all(|path| remaining.contains(&path)) {
                findings.push(finding(sources, &imports, &circle));
            }
            met.extend(paths);
        }
    }
    let done = remaining.iter().filter(|path| !met.contains(**path));
    let text = "is in no circle of imports any more: take it off the list of those that are";
    findings.extend(done.map(|path| Finding { path: (*path).to_owned(), line: 0, text: text.to_owned() }));
    Ok(findings)
}

/// Whether `path` is the root of a crate.
fn is_root(sources: &[Source], path: &str) -> bool {
    let Some((folder, file)) = path.rsplit_once('/') else { return false };
    match file {
        "lib.rs" => folder.ends_with("src"),
        "main.rs" => folder.ends_with("src") || folder.contains("src/bin/"),
        // Beside a `main.rs` it is a part of that.
        _ => folder.ends_with("src/bin") && !sources.iter().any(|s| s.path == format!("{folder}/main.rs")),
    }
}

fn finding(sources: &[Source], imports: &Imports, circle: &BTreeSet<usize>) -> Finding {
    let mut text = format!("{} files import each other", circle.len());
    for file in circle {
        for (to, names) in imports[file].iter().filter(|(to, _)| circle.contains(*to)) {
            let names = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            text += &format!("\n    {} takes from {}: {names}", sources[*file].path, sources[*to].path);
        }
    }
    let first = circle.first().map_or_else(String::new, |file| sources[*file].path.clone());
    Finding { path: first, line: 0, text }
}

fn imports(modules: &Modules) -> Imports {
    let mut imports = Imports::new();
    for (path, module) in &modules.all {
        let mut names = Names { modules, from: path, file: module.file, imports: &mut imports };
        for item in &module.items {
            names.visit_item(item);
        }
    }
    imports
}

/// Collects what a module takes from elsewhere.
struct Names<'a> {
    modules: &'a Modules,
    from: &'a [String],
    file: usize,
    imports: &'a mut Imports,
}

impl Names<'_> {
    fn take(&mut self, path: &[String]) {
        if let Some((module, name)) = self.modules.resolve(self.from, path)
            && !self.from.starts_with(&module)
            && self.modules.all[&module].file != self.file
        {
            let file = self.modules.all[&module].file;
            self.imports.entry(self.file).or_default().entry(file).or_default().insert(name);
        }
    }

    /// Takes the paths in a macro's arguments, which are no syntax yet.
    fn take_tokens(&mut self, tokens: TokenStream) {
        let mut path = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.take(&core::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                other => {
                    self.take(&core::mem::take(&mut path));
                    if let TokenTree::Group(group) = other {
                        self.take_tokens(group.stream());
                    }
                    colons = 0;
                }
            }
        }
        self.take(&path);
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_only_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_only_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !hands_on(&item.vis) {
            for (_, path) in leaves(&item.tree) {
                self.take(&path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.take(&names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.take_tokens(called.tokens.clone());
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

/// Groups of files in which each leads to each other.
fn circles(imports: &Imports) -> BTreeSet<BTreeSet<usize>> {
    let reachable: BTreeMap<usize, BTreeSet<usize>> =
        imports.keys().map(|&file| (file, reachable(imports, file))).collect();
    let leads = |from: &usize, to: &usize| reachable.get(from).is_some_and(|files| files.contains(to));
    let in_circles = imports.keys().filter(|file| leads(file, file));
    in_circles
        .map(|file| imports.keys().copied().filter(|to| leads(file, to) && leads(to, file)).collect())
        .collect()
}

fn reachable(imports: &Imports, file: usize) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut left = vec![file];
    while let Some(file) = left.pop() {
        let next = imports.get(&file).into_iter().flat_map(BTreeMap::keys).copied();
        left.extend(next.filter(|next| seen.insert(*next)));
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(files: &[(&str, &str)]) -> Vec<Finding> {
        let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        check_but(&sources, &[]).unwrap()
    }

    #[test]
    fn files_that_import_each_other_are_found_with_what_they_take() {
        let found = findings(&[
            ("a/src/lib.rs", "mod x; mod y; mod z;"),
            ("a/src/x.rs", "use crate::y::Y; pub struct X;"),
            ("a/src/y.rs", "pub struct Y; fn f() { assert!(crate::z::holds()); }"),
            ("a/src/z.rs", "use crate::x; fn g() -> x::X { x::X }"),
        ]);
        assert_eq!(found.len(), 1);
        for arrow in [
            "x.rs takes from a/src/y.rs: Y",
            "y.rs takes from a/src/z.rs: holds",
            "z.rs takes from a/src/x.rs: X",
        ] {
            assert!(found[0].text.contains(arrow), "{arrow} is not in {}", found[0].text);
        }
    }

    #[test]
    fn a_module_may_name_what_is_defined_around_it() {
        let files = [
            ("a/src/main.rs", "mod m; mod n;"),
            ("a/src/m/mod.rs", "mod child; pub struct Parent; fn g() { child::f(Parent) }"),
            ("a/src/m/child.rs", "use super::Parent; pub fn f(_: Parent) {}"),
            ("a/src/n.rs", "use crate::m::Parent; pub struct N(Parent);"),
        ];
        assert_eq!(findings(&files), []);
        let mut circle = files;
        circle[1].1 = "mod child; pub struct Parent; pub use child::f; fn g() { child::f(Parent) }";
        circle[2].1 = "use crate::n::N; pub fn f(_: super::Parent) {}";
        assert_eq!(findings(&circle).len(), 1);
    }

    #[test]
    fn a_path_through_another_module_leads_to_the_definition() {
        let files = [
            ("a/src/lib.rs", "mod m; mod user;"),
            ("a/src/m/mod.rs", "mod low; mod high; pub use low::Low; pub use high::High;"),
            ("a/src/m/low.rs", "pub struct Low;"),
            ("a/src/m/high.rs", "use crate::user::User; pub struct High(User);"),
            ("a/src/user.rs", "use crate::m; pub struct User(m::Low);"),
        ];
        assert_eq!(findings(&files), []);
        let mut circle = files;
        circle[4].1 = "use crate::m; pub struct User(*const m::High);";
        assert_eq!(findings(&circle).len(), 1);
    }

    #[test]
    fn a_known_circle_is_passed_over_while_it_lasts() {
        let circle = [
            ("a/src/lib.rs", "mod x; mod y;"),
            ("a/src/x.rs", "use crate::y::Y; pub struct X;"),
            ("a/src/y.rs", "use crate::x::X; pub struct Y;"),
        ]
        .map(|(path, text)| Source::new(path, text));
        let known = ["a/src/x.rs", "a/src/y.rs"];
        assert_eq!(check_but(&circle, &known[..1]).unwrap().len(), 1);
        assert_eq!(check_but(&circle, &known).unwrap(), []);
        assert_eq!(check_but(&circle[..2], &known).unwrap().len(), 2);
    }

    #[test]
    fn tests_may_import_what_they_like() {
        let y = ("a/src/y.rs", "pub struct Y; #[cfg(test)] mod tests { use crate::x::X; }");
        let x = ("a/src/x.rs", "use crate::y::Y; #[cfg(test)] mod fake; pub struct X;");
        let fake = ("a/src/x/fake.rs", "use super::X;");
        assert_eq!(findings(&[("a/src/lib.rs", "mod x; mod y;"), x, y, fake]), []);
    }
}
