//! `--keyspace` and `keyspaces`: each command sees the keys of one; what each holds; dropping some.

use crate::run::{Place, tree};

#[test]
fn each_command_sees_the_keys_of_its_keyspace() {
    let place = Place::new();
    let index = ["--keyspace", "index"];
    let with = |args: &[&str]| [args, &index].concat().into_iter().map(str::to_owned).collect();
    let run = |command: &str, args: &[&str]| {
        let args: Vec<String> = with(args);
        place.sluice(command, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    place.sluice("put", &["k", "default"]).ok();
    run("get", &["k"]).fails(3, "no keyspace is called index");
    run("put", &["k", "mine"]).ok();
    run("put", &["other", "mine"]).ok();
    assert_eq!(run("get", &["k"]).ok().text().trim(), "mine");
    assert_eq!(place.sluice("get", &["k"]).ok().text().trim(), "default");
    place.sluice("get", &["other"]).fails(3, "");
    assert_eq!(run("scan", &["--keys-only"]).ok().text().trim_end(), "k\nother");
    run("split", &["m"]).ok();
    assert_eq!(run("ranges", &["--json"]).ok().json().as_array().unwrap().len(), 2);
    run("del", &["k"]).ok();
    run("excise", &["--prefix", "o"]).ok();
    assert_eq!(place.sluice("scan", &["--keys-only"]).ok().text().trim_end(), "k");
    let from = place.path("db").display().to_string();
    let args = ["--from-db", &from, "--from-keyspace", "index", "--from", "a", "--to", "z"];
    place.on("db2", "put", &["k", "gone"]).ok();
    place.on("db2", "replace", &args).ok();
    assert_eq!(place.on("db2", "scan", &[]).ok().text().trim_end(), "");
    place.sluice("verify", &[]).ok();
}

#[test]
fn keyspaces_are_listed_and_dropped() {
    let place = Place::new();
    place.sluice("put", &["k", "v"]).ok();
    place.sluice("put", &["k", "v", "--keyspace", "a"]).ok();
    place.sluice("put", &["k", "v", "--keyspace", "b c"]).ok();
    let before = tree(&place.db());
    let text = place.sluice("keyspaces", &[]).ok().text();
    let names: Vec<_> = text.lines().skip(1).map(|line| &line[35..]).collect();
    assert_eq!(names, ["default", "a", "b c"], "{text}");
    let json = place.sluice("keyspaces", &["--json"]).ok().json();
    assert_eq!((&json[2]["keyspace"], &json[2]["entries"]), (&"b c".into(), &1.into()), "{json}");
    assert!(tree(&place.db()) == before, "to list them changes nothing");
    place.sluice("keyspaces", &["--drop", "a", "--drop", "x"]).fails(3, "no keyspace is called x");
    place.sluice("keyspaces", &["--drop", "default"]).fails(2, "cannot be dropped");
    let text = place.sluice("keyspaces", &["--drop", "a"]).ok().text();
    assert_eq!(text.lines().count(), 3, "{text}");
    place.on("none", "keyspaces", &[]).fails(3, "no database there");
    place.sluice("verify", &[]).ok();
}
