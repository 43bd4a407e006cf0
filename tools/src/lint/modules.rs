//! Modules of a crate as its files declare them, and which file a path leads to.
//!
//! What only tests compile is left out. A path through a re-export leads to where the item is defined.

use super::Source;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use syn::{Attribute, Item, ItemMod, Meta, UseTree, Visibility};

/// Names on the way to something, from a module on.
pub(super) type Path = Vec<String>;

/// A module of the crate.
pub(super) struct Module {
    /// The file it is written in, by index into the sources.
    pub(super) file: usize,
    /// Its items, without those of modules inside.
    pub(super) items: Vec<Item>,
    /// Names that its `use` items bind, and what each stands for.
    bindings: BTreeMap<String, Path>,
}

/// All modules of a crate by their paths from its root, which is the empty path.
#[derive(Default)]
pub(super) struct Modules {
    pub(super) all: BTreeMap<Path, Module>,
}

/// Re-exports of re-exports that are followed.
const MOST_STEPS: usize = 16;

impl Modules {
    /// Reads the crate whose root is the file `root`.
    ///
    /// # Errors
    ///
    /// A file that is no Rust.
    pub(super) fn of_crate(sources: &[Source], root: usize) -> Result<Self> {
        let mut modules = Self::default();
        let folder = folder_of(&sources[root].path);
        modules.read_file(sources, root, &folder, Path::new())?;
        Ok(modules)
    }

    /// The module that `path`, as the module `from` writes it, leads into, and the item's name; `None` for a module as
    /// a whole, and for what lies outside the crate.
    pub(super) fn resolve(&self, from: &[String], path: &[String]) -> Option<(Path, String)> {
        self.follow(from, path, MOST_STEPS)
    }

    fn follow(&self, from: &[String], path: &[String], steps: usize) -> Option<(Path, String)> {
        let steps = steps.checked_sub(1)?;
        let mut at = from.to_vec();
        for (index, name) in path.iter().enumerate() {
            match name.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()?),
                _ => {
                    let child = [at.as_slice(), core::slice::from_ref(name)].concat();
                    if self.all.contains_key(&child) {
                        at = child;
                        continue;
                    }
                    let module = self.all.get(&at)?;
                    if let Some(bound) = module.bindings.get(name) {
                        let rest = [bound.as_slice(), &path[index + 1..]].concat();
                        return self.follow(&at, &rest, steps);
                    }
                    // The first name of a path is a local one or another crate's.
                    return (index > 0).then(|| (at, name.clone()));
                }
            }
        }
        None
    }

    fn read_file(&mut self, sources: &[Source], file: usize, folder: &str, path: Path) -> Result<()> {
        let source = &sources[file];
        let parsed = syn::parse_file(&source.text).with_context(|| format!("cannot read {}", source.path))?;
        self.add(sources, file, folder, path, parsed.items)
    }

    /// Adds the module at `path`, whose modules in files of their own lie in `folder`.
    fn add(
        &mut self,
        sources: &[Source],
        file: usize,
        folder: &str,
        path: Path,
        items: Vec<Item>,
    ) -> Result<()> {
        let (modules, items): (Vec<_>, Vec<_>) = items
            .into_iter()
            .filter(|item| !is_only_for_tests(attributes(item)))
            .partition(|item| matches!(item, Item::Mod(_)));
        let mut bindings = BTreeMap::new();
        for item in &items {
            if let Item::Use(import) = item {
                for (name, leaf) in leaves(&import.tree) {
                    bindings.insert(name, leaf);
                }
            }
        }
        self.all.insert(path.clone(), Module { file, items, bindings });
        for item in modules {
            let Item::Mod(ItemMod { ident, content, .. }) = item else { continue };
            let inner = [path.as_slice(), &[ident.to_string()]].concat();
            let inner_folder = format!("{folder}{ident}/");
            if let Some((_, items)) = content {
                self.add(sources, file, &inner_folder, inner, items)?;
                continue;
            }
            let places = [format!("{folder}{ident}.rs"), format!("{inner_folder}mod.rs")];
            let found = sources.iter().position(|source| places.contains(&source.path));
            if let Some(found) = found {
                self.read_file(sources, found, &inner_folder, inner)?;
            }
        }
        Ok(())
    }
}

/// The folder of a crate's root, with a slash behind it.
fn folder_of(path: &str) -> String {
    path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"))
}

/// Names that a `use` item binds, with the path that each stands for.
pub(super) fn leaves(tree: &UseTree) -> Vec<(String, Path)> {
    let below = |first: &str, tree: &UseTree| {
        let mut leaves = leaves(tree);
        for (name, path) in &mut leaves {
            if name == "self" {
                first.clone_into(name);
            }
            path.insert(0, first.to_owned());
        }
        leaves
    };
    match tree {
        UseTree::Path(path) => below(&path.ident.to_string(), &path.tree),
        UseTree::Name(name) => vec![(name.ident.to_string(), vec![name.ident.to_string()])],
        UseTree::Rename(name) => vec![(name.rename.to_string(), vec![name.ident.to_string()])],
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
        _ => Vec::new(),
    }
}

/// Whether a `use` item with this visibility hands on what it names.
pub(super) const fn hands_on(visibility: &Visibility) -> bool {
    !matches!(visibility, Visibility::Inherited)
}

pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether what has these attributes is compiled for tests and fuzzing alone.
pub(super) fn is_only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::List(list) = &attribute.meta else { return false };
        list.path.is_ident("cfg") && list.parse_args().is_ok_and(|condition| !may_hold(&condition))
    })
}

/// Whether a condition can hold outside tests.
fn may_hold(condition: &Meta) -> bool {
    let Meta::List(list) = condition else {
        return !condition.path().is_ident("test") && !condition.path().is_ident("fuzzing");
    };
    let parts = syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated;
    let Ok(parts) = list.parse_args_with(parts) else { return true };
    match list.path.get_ident().map(ToString::to_string).as_deref() {
        Some("all") => parts.iter().all(may_hold),
        Some("any") => parts.iter().any(may_hold),
        _ => true,
    }
}
