//! What husk is made of, from `cargo metadata` on standard input and Cargo.lock:
//! `cargo run --example sbom -- cyclonedx` writes a bill of materials (CycloneDX 1.5, JSON),
//! `cargo run --example sbom -- table` the table of docs/supply-chain.md.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    description: Option<String>,
    source: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    root: String,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// All packages that husk is built from.
struct Tree {
    packages: BTreeMap<String, Package>,
    needs: BTreeMap<String, BTreeSet<String>>,
    root: String,
    /// Those of which code is in the binary; the others run while it is built.
    inside: BTreeSet<String>,
}

impl Tree {
    fn new(metadata: Metadata) -> Tree {
        let mut packages: BTreeMap<String, Package> = metadata
            .packages
            .into_iter()
            .map(|package| (package.id.clone(), package))
            .collect();
        let is_macro = |id: &str| {
            packages.get(id).is_some_and(|package| {
                package
                    .targets
                    .iter()
                    .any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
            })
        };
        let edges = |wanted: fn(&Kind) -> bool| -> BTreeMap<String, BTreeSet<String>> {
            let nodes = metadata.resolve.nodes.iter().map(|node| {
                let deps = node
                    .deps
                    .iter()
                    .filter(|dep| dep.dep_kinds.iter().any(wanted));
                (node.id.clone(), deps.map(|dep| dep.pkg.clone()).collect())
            });
            nodes.collect()
        };
        let mut needs = edges(|kind| kind.kind.as_deref() != Some("dev"));
        let linked = edges(|kind| kind.kind.is_none());
        let root = metadata.resolve.root;
        let all = reached(&root, &needs, |_| true);
        let inside = reached(&root, &linked, |id| !is_macro(id));
        packages.retain(|id, _| all.contains(id));
        needs.retain(|id, _| all.contains(id));
        Tree {
            packages,
            needs,
            root,
            inside,
        }
    }

    fn others(&self) -> impl Iterator<Item = &Package> {
        let mut others: Vec<&Package> = self
            .packages
            .values()
            .filter(|package| package.id != self.root)
            .collect();
        others.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        others.into_iter()
    }

    fn needed_by(&self, id: &str) -> Vec<String> {
        let who = self.needs.iter().filter(|(_, needs)| needs.contains(id));
        let mut names: Vec<String> = who
            .filter_map(|(id, _)| Some(self.packages.get(id)?.name.clone()))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

fn reached(
    root: &str,
    edges: &BTreeMap<String, BTreeSet<String>>,
    may: impl Fn(&str) -> bool,
) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut pending = vec![root.to_owned()];
    while let Some(id) = pending.pop() {
        if may(&id) && seen.insert(id.clone()) {
            pending.extend(edges.get(&id).into_iter().flatten().cloned());
        }
    }
    seen
}

/// SPDX has no slash.
fn license(package: &Package) -> String {
    let text = package.license.as_deref().unwrap_or("NOASSERTION");
    text.split('/')
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" OR ")
}

fn reference(package: &Package) -> String {
    match package.source {
        Some(_) => format!("pkg:cargo/{}@{}", package.name, package.version),
        // Of this repository.
        None => format!("{}@{}", package.name, package.version),
    }
}

/// The registry's SHA-256 of each package, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let blocks = lock.split("[[package]]").skip(1);
    let parsed = blocks.filter_map(|block| {
        let field = |name: &str| {
            let line = block
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""))?;
            Some(line.trim_end_matches('"').to_owned())
        };
        Some(((field("name")?, field("version")?), field("checksum")?))
    });
    parsed.collect()
}

fn component(
    package: &Package,
    tree: &Tree,
    checksums: &BTreeMap<(String, String), String>,
) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(package),
        "name": package.name,
        "version": package.version,
        "scope": if tree.inside.contains(&package.id) { "required" } else { "excluded" },
        "licenses": [{ "expression": license(package) }],
    });
    if package.source.is_some() {
        component["purl"] = reference(package).into();
    }
    if let Some(sum) = checksums.get(&(package.name.clone(), package.version.clone())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

fn cyclonedx(tree: &Tree, lock: &str) -> Option<Value> {
    let checksums = checksums(lock);
    let husk = tree.packages.get(&tree.root)?;
    let depends = |id: &String| -> Vec<String> {
        let ids = tree.needs.get(id).into_iter().flatten();
        ids.filter_map(|id| tree.packages.get(id))
            .map(reference)
            .collect()
    };
    let all = [husk].into_iter().chain(tree.others());
    Some(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": reference(husk),
                "name": husk.name,
                "version": husk.version,
                "description": husk.description,
                "licenses": [{ "expression": license(husk) }],
            },
        },
        "components": tree.others().map(|package| component(package, tree, &checksums)).collect::<Vec<_>>(),
        "dependencies": all
            .map(|package| json!({ "ref": reference(package), "dependsOn": depends(&package.id) }))
            .collect::<Vec<_>>(),
    }))
}

fn table(tree: &Tree) -> String {
    let mut text = String::from(
        "| crate | version | licence | needed by | in the binary |\n| --- | --- | --- | --- | --- |\n",
    );
    for package in tree.others() {
        let inside = if tree.inside.contains(&package.id) {
            "yes"
        } else {
            ""
        };
        text.push_str(&format!(
            "| `{}` | {} | {} | {} | {inside} |\n",
            package.name,
            package.version,
            license(package),
            tree.needed_by(&package.id).join(", "),
        ));
    }
    text
}

fn main() -> io::Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let tree = Tree::new(serde_json::from_str(&text)?);
    let written = match std::env::args().nth(1).as_deref() {
        Some("cyclonedx") => {
            let lock = std::fs::read_to_string("Cargo.lock")?;
            let bill = cyclonedx(&tree, &lock)
                .ok_or_else(|| io::Error::other("no package at the root"))?;
            format!("{}\n", serde_json::to_string_pretty(&bill)?)
        }
        Some("table") => table(&tree),
        _ => return Err(io::Error::other("usage: sbom cyclonedx|table <METADATA")),
    };
    io::stdout().write_all(written.as_bytes())
}
