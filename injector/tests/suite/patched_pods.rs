//! Pods before and after: what is added, that nothing else changes, and what is refused.

use crate::support::{injected, plain_pod, pod};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use strongroom_injector::Refusal;

fn patched(spec: &Value) -> Value {
    injected(&pod(spec)).unwrap().0
}

fn refused(spec: &Value) -> Refusal {
    injected(&pod(spec)).unwrap_err()
}

fn annotate(mut pod: Value, name: &str, value: &str) -> Value {
    pod["metadata"]["annotations"][format!("strongroom.dev/{name}")] = json!(value);
    pod
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

/// Sorted, because the order of an object's members depends on what else is compiled in: another crate may switch serde_json's `preserve_order` on.
fn assert_pod_snapshot(name: &str, pod: &Value) {
    insta::with_settings!({sort_maps => true}, {
        insta::assert_yaml_snapshot!(name, pod);
    });
}

#[test]
fn a_plain_pod() {
    let (after, mutation) = injected(&plain_pod()).unwrap();
    assert_pod_snapshot("plain_pod", &after);
    insta::assert_yaml_snapshot!("plain_pod_warnings", mutation.warnings);
}

#[test]
fn a_pod_with_its_own_volumes_init_containers_sidecars_and_users() {
    let before = json!({
        "securityContext": {"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000},
        "volumes": [{"name": "data", "emptyDir": {}}],
        "initContainers": [
            {"name": "migrate", "image": "m:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            {"name": "proxy", "image": "p:1", "restartPolicy": "Always"},
        ],
        "containers": [
            {"name": "app", "image": "app:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            {"name": "worker", "image": "app:1", "volumeMounts": []},
        ],
    });
    let before = annotate(annotate(pod(&before), "secret.db", "payments/db@previous"), "format.db", "dir");
    let before =
        annotate(annotate(annotate(before, "file-mode.db", "0440"), "role", "payments/readers"), "log-level", "debug");
    let (after, mutation) = injected(&before).unwrap();
    assert_pod_snapshot("full_pod", &after);
    assert!(mutation.warnings.is_empty(), "{:?}", mutation.warnings);
    assert_eq!(names(&after["spec"]["initContainers"]), ["strongroom-agent", "migrate", "proxy"]);
}

#[test]
fn thirty_containers_all_get_the_mount() {
    let containers: Vec<Value> = (0..30).map(|n| json!({"name": format!("c{n}"), "image": "c:1"})).collect();
    let after = patched(&json!({"containers": containers}));
    let all = after["spec"]["containers"].as_array().unwrap();
    assert_eq!(all.len(), 30);
    assert!(all.iter().all(|c| c["volumeMounts"]
        == json!([{"name": "strongroom-secrets", "mountPath": "/run/secrets/strongroom", "readOnly": true}])));
}

#[test]
fn only_the_chosen_containers_get_the_mount_and_only_their_users_count() {
    let before = pod(&json!({
        "initContainers": [{"name": "setup", "securityContext": {"runAsUser": 7}}],
        "containers": [{"name": "app", "securityContext": {"runAsUser": 7}}, {"name": "proxy"}],
    }));
    let after = injected(&annotate(before, "containers", "app, setup")).unwrap().0;
    assert!(after["spec"]["containers"][0]["volumeMounts"].is_array());
    assert!(after["spec"]["initContainers"][1]["volumeMounts"].is_array());
    assert!(after["spec"]["containers"][1].get("volumeMounts").is_none());
    assert_eq!(after["spec"]["initContainers"][0]["securityContext"]["runAsUser"], 7);
}

#[test]
fn a_container_that_the_pod_does_not_have_cannot_be_chosen() {
    let error = injected(&annotate(plain_pod(), "containers", "app,hunter2")).unwrap_err();
    assert_eq!(error, Refusal::NoSuchContainer { position: 2 });
    assert!(!error.to_string().contains("hunter2"));
}

#[test]
fn null_lists_are_taken_for_missing_ones() {
    let after = patched(
        &json!({"containers": [{"name": "app", "volumeMounts": null}], "initContainers": null, "volumes": null}),
    );
    assert_eq!(names(&after["spec"]["initContainers"]), ["strongroom-agent"]);
    assert_eq!(names(&after["spec"]["volumes"]), ["strongroom-secrets", "strongroom-token"]);
}

#[test]
fn host_network_and_ephemeral_containers_are_left_as_they_are() {
    let after = patched(
        &json!({"hostNetwork": true, "containers": [{"name": "app"}], "ephemeralContainers": [{"name": "debug"}]}),
    );
    assert_eq!(after["spec"]["hostNetwork"], true);
    assert_eq!(after["spec"]["ephemeralContainers"], json!([{"name": "debug"}]));
}

#[test]
fn the_token_is_mounted_in_the_agent_only() {
    let after = patched(&json!({"containers": [{"name": "app"}], "initContainers": [{"name": "setup"}]}));
    let mounting = |list: &str| {
        let mounts = |container: &Value| container["volumeMounts"].as_array().cloned().unwrap_or_default();
        let containers = after["spec"][list].as_array().unwrap();
        let with_token = |container: &&Value| mounts(container).iter().any(|mount| mount["name"] == "strongroom-token");
        containers.iter().filter(with_token).map(|container| container["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(mounting("initContainers"), ["strongroom-agent"]);
    assert_eq!(mounting("containers"), [] as [&str; 0]);
    assert_eq!(after.to_string().matches("strongroom-token").count(), 2);
}

#[test]
fn injecting_twice_is_injecting_once() {
    let once = injected(&plain_pod()).unwrap().0;
    let (twice, mutation) = injected(&once).unwrap();
    assert_eq!(once, twice);
    assert!(mutation.patch.is_empty());
}

#[test]
fn the_agent_is_not_moved_nor_made_again_after_other_webhooks_changed_the_pod() {
    let mut once = injected(&plain_pod()).unwrap().0;
    once["spec"]["initContainers"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({"name": "mesh", "restartPolicy": "Always"}));
    once["spec"]["initContainers"][1]["env"].as_array_mut().unwrap().insert(0, json!({"name": "TZ", "value": "UTC"}));
    once["spec"]["initContainers"][1]["volumeMounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}));
    once["spec"]["securityContext"] = json!({"runAsUser": 1000, "fsGroup": 2000});
    assert!(injected(&once).unwrap().1.patch.is_empty());
}

#[test]
fn an_annotation_does_not_make_a_pod_injected() {
    let before = annotate(plain_pod(), "inject", "true");
    let mut before = before;
    before["metadata"]["annotations"]["injected.strongroom.dev"] = json!("true");
    assert!(!injected(&before).unwrap().1.patch.is_empty());
}

/// What comes of a second invocation when another changed this in between.
fn invoked_again(path: &str, value: Value) -> Result<usize, Refusal> {
    let mut once = injected(&plain_pod()).unwrap().0;
    let (parent, field) = path.rsplit_once('/').unwrap();
    let parent = once.pointer_mut(parent).unwrap();
    match field.parse::<usize>() {
        Ok(index) => parent[index] = value,
        Err(_) => parent[field] = value,
    }
    injected(&once).map(|(_, mutation)| mutation.patch.len())
}

fn configuration(from: &str, to: &str) -> Value {
    let once = injected(&plain_pod()).unwrap().0;
    let text = once["spec"]["initContainers"][0]["env"][0]["value"].as_str().unwrap().to_owned();
    assert!(text.contains(from));
    json!(text.replace(from, to))
}

#[test]
fn an_agent_that_other_webhooks_and_policies_changed_is_still_ours() {
    for (path, value) in [
        ("/spec/initContainers/0/image", json!("mirror.example/strongroom/agent@sha256:00")),
        ("/spec/initContainers/0/imagePullPolicy", json!("Always")),
        ("/spec/initContainers/0/command", json!(["/wrapper", "/strongroom-agent", "run"])),
        ("/spec/initContainers/0/args", json!(["x"])),
        ("/spec/initContainers/0/resources", json!({"limits": {"cpu": "1", "memory": "64Mi"}})),
        ("/spec/initContainers/0/securityContext", json!({"runAsUser": 1000})),
        ("/spec/initContainers/0/x-field-of-a-later-version", json!(true)),
        // The operator's settings, which another replica may have in another version.
        ("/spec/initContainers/0/env/0/value", configuration("https://strongroom.", "https://other.")),
        ("/spec/initContainers/0/env/0/value", configuration("\"wait_deadline_seconds\":120", "\"later\":1")),
        ("/spec/initContainers/0/env/0/value", configuration("0444", "0440")),
        (
            "/spec/volumes/0",
            json!({"name": "strongroom-secrets", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}),
        ),
        ("/spec/volumes/1/projected/sources/0/serviceAccountToken/audience", json!("strongroom/trial/other")),
        ("/spec/volumes/1/projected/defaultMode", json!(0o440)),
    ] {
        assert_eq!(invoked_again(path, value.clone()), Ok(0), "{path} {value}");
    }
}

#[test]
fn a_container_of_our_name_that_is_not_ours_is_refused() {
    for (path, value) in [
        ("/spec/initContainers/0/restartPolicy", json!("Never")),
        ("/spec/initContainers/0/restartPolicy", Value::Null),
        ("/spec/initContainers/0/env", json!([])),
        ("/spec/initContainers/0/env", Value::Null),
        ("/spec/initContainers/0/env/0/value", json!("{")),
        ("/spec/initContainers/0/env/0/value", Value::Null),
        ("/spec/initContainers/0/env/0/value", configuration("payments/db", "payments/other")),
        ("/spec/initContainers/0/env/0/value", configuration("\"password\"", "\"other\"")),
        ("/spec/initContainers/0/env/0/value", configuration("\"raw\"", "\"json\"")),
        ("/spec/initContainers/0/env/0/value", configuration("\"files\":[", "\"files\":[],\"other\":[")),
        ("/spec/volumes", json!([])),
        ("/spec/volumes/0", json!({"name": "strongroom-secrets", "emptyDir": {}})),
        ("/spec/volumes/0", json!({"name": "strongroom-secrets", "hostPath": {"path": "/x"}})),
        ("/spec/volumes/1", json!({"name": "strongroom-token", "emptyDir": {}})),
        ("/spec/volumes/1", json!({"name": "other", "emptyDir": {}})),
    ] {
        assert_eq!(invoked_again(path, value.clone()), Err(Refusal::ReservedContainer), "{path} {value}");
    }
    let mut moved = injected(&plain_pod()).unwrap().0;
    let agent = moved["spec"]["initContainers"][0].take();
    moved["spec"]["initContainers"] = json!([]);
    moved["spec"]["containers"].as_array_mut().unwrap().push(agent);
    assert_eq!(injected(&moved).unwrap_err(), Refusal::ReservedContainer, "no sidecar but a container");
    assert_eq!(refused(&json!({"containers": [{"name": "strongroom-agent"}]})), Refusal::ReservedContainer);
    assert_eq!(
        refused(&json!({"containers": [], "initContainers": [{"name": "strongroom-agent"}]})),
        Refusal::ReservedContainer
    );
}

#[test]
fn mounts_that_came_between_two_invocations_are_checked_too() {
    let again = |mount: Value| {
        let mut once = injected(&plain_pod()).unwrap().0;
        let proxy = json!({"name": "proxy", "image": "p:1", "volumeMounts": [mount]});
        once["spec"]["containers"].as_array_mut().unwrap().push(proxy);
        injected(&once).map(|(_, mutation)| mutation)
    };
    assert_eq!(
        again(json!({"name": "strongroom-token", "mountPath": "/t", "readOnly": true})),
        Err(Refusal::TokenMounted { container: "proxy".to_owned() })
    );
    assert_eq!(
        again(json!({"name": "strongroom-secrets", "mountPath": "/t"})),
        Err(Refusal::WritableMount { container: "proxy".to_owned() })
    );
    let sub_path =
        again(json!({"name": "strongroom-secrets", "mountPath": "/t", "subPath": "x", "readOnly": true})).unwrap();
    assert!(sub_path.patch.is_empty() && sub_path.warnings.len() == 1, "{sub_path:?}");
    assert!(again(json!({"name": "strongroom-secrets", "mountPath": "/t", "readOnly": true})).is_ok());
}

#[test]
fn a_guaranteed_pod_stays_guaranteed() {
    let small = json!({"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"memory": "16Mi"}});
    let guaranteed = json!({"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"cpu": "50m", "memory": "16Mi"}});
    let all = json!({"cpu": "1", "memory": "1Gi"});
    let equal = json!({"requests": all, "limits": all});
    let agents = |main: &Value, init: &Value| {
        let spec = json!({"containers": [{"name": "app", "resources": main}], "initContainers": [{"name": "setup", "resources": init}]});
        patched(&spec)["spec"]["initContainers"][0]["resources"].clone()
    };
    assert_eq!(agents(&equal, &equal), guaranteed);
    assert_eq!(agents(&json!({"limits": all}), &equal), guaranteed, "limits without requests are requests");
    for other in [
        Value::Null,
        json!({}),
        json!({"requests": all}),
        json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": all}),
        json!({"requests": {"cpu": "1", "memory": "512Mi"}, "limits": all}),
        json!({"limits": {"cpu": "1"}}),
        json!({"limits": {"memory": "1Gi"}}),
        json!({"limits": {"cpu": "0", "memory": "1Gi"}}),
        json!("x"),
    ] {
        assert_eq!(agents(&other, &equal), small, "{other}");
        assert_eq!(agents(&equal, &other), small, "{other}");
    }
}

#[test]
fn the_operators_limit_of_processor_time_is_the_agents() {
    let text = format!("agent_cpu_limit = '100m'\n{}", crate::support::SETTINGS.as_str());
    let settings = strongroom_injector::Settings::parse(&text, std::path::Path::new(".")).unwrap();
    let resources = |app: &Value| {
        let pod = pod(&json!({"containers": [{"name": "app", "resources": app}]}));
        let asked = pod["metadata"]["annotations"].as_object().unwrap();
        let injection = strongroom_injector::annotations::parse(asked).unwrap().unwrap();
        let patch = strongroom_injector::mutate(&pod, &injection, &settings).unwrap().patch;
        serde_json::to_value(patch.last().unwrap()).unwrap()["value"][0]["resources"].clone()
    };
    let limits = json!({"cpu": "100m", "memory": "16Mi"});
    assert_eq!(resources(&json!({})), json!({"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": limits}));
    let all = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
    assert_eq!(resources(&all), json!({"requests": limits, "limits": limits}));
}

#[test]
fn more_secrets_than_one_agent_watches_are_refused() {
    let with = |secrets: usize| {
        let mut before = plain_pod();
        for n in 1..secrets {
            before = annotate(before, &format!("secret.file-{n}"), &format!("payments/s{n}#password"));
        }
        // Of secrets that are asked for already.
        annotate(annotate(before, "secret.user", "payments/db#user"), "secret.again", "payments/s1#user")
    };
    assert!(injected(&with(200)).is_ok());
    assert_eq!(injected(&with(201)).unwrap_err(), Refusal::TooManySecrets);
    let versions = annotate(with(200), "secret.old", "payments/db@previous");
    assert_eq!(injected(&annotate(versions, "format.old", "json")).unwrap_err(), Refusal::TooManySecrets);
}

#[test]
fn more_containers_than_any_pod_needs_are_refused() {
    let containers: Vec<Value> = (0..1001).map(|n| json!({"name": format!("c{n}")})).collect();
    assert_eq!(refused(&json!({"containers": containers})), Refusal::TooManyContainers);
}

#[test]
fn volumes_of_our_names_are_refused() {
    for name in ["strongroom-secrets", "strongroom-token"] {
        let spec = json!({"containers": [{"name": "app"}], "volumes": [{"name": name, "emptyDir": {}}]});
        assert_eq!(refused(&spec), Refusal::ReservedVolume { name });
    }
}

#[test]
fn each_mount_that_collides_is_refused() {
    for path in [
        "/run/secrets/strongroom",
        "/run/secrets/strongroom/",
        "/run//secrets/strongroom",
        "/run/secrets/./strongroom",
        "/run/secrets/strongroom/db",
    ] {
        let spec = json!({"containers": [{"name": "app", "volumeMounts": [{"name": "x", "mountPath": path}]}]});
        assert_eq!(refused(&spec), Refusal::MountCollision { container: "app".to_owned() }, "{path}");
    }
    for path in ["/run/secrets", "/run", "/run/secrets/strongroom2", "/var/run/secrets/kubernetes.io/serviceaccount"] {
        let spec = json!({"containers": [{"name": "app", "volumeMounts": [{"name": "x", "mountPath": path}]}]});
        assert!(injected(&pod(&spec)).is_ok(), "{path}");
    }
}

#[test]
fn the_pods_own_mounts_of_our_volumes_are_read_only_or_refused() {
    let with = |mount: Value| json!({"containers": [{"name": "app", "volumeMounts": [mount]}]});
    assert_eq!(
        refused(&with(json!({"name": "strongroom-token", "mountPath": "/t", "readOnly": true}))),
        Refusal::TokenMounted { container: "app".to_owned() }
    );
    assert_eq!(
        refused(&with(json!({"name": "strongroom-secrets", "mountPath": "/t"}))),
        Refusal::WritableMount { container: "app".to_owned() }
    );
    assert_eq!(
        refused(&with(json!({"name": "strongroom-secrets", "mountPath": "/t", "readOnly": false}))),
        Refusal::WritableMount { container: "app".to_owned() }
    );
    let same = json!({"name": "strongroom-secrets", "mountPath": "/run/secrets/strongroom", "readOnly": true});
    assert_eq!(patched(&with(same.clone()))["spec"]["containers"][0]["volumeMounts"], json!([same]));
    let sub_path =
        with(json!({"name": "strongroom-secrets", "mountPath": "/t", "subPath": "password", "readOnly": true}));
    let warnings = injected(&pod(&sub_path)).unwrap().1.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("subPath")), "{warnings:?}");
}

#[test]
fn warnings_say_when_more_users_than_needed_can_read_or_the_app_cannot() {
    let warnings = |pod: &Value| injected(pod).unwrap().1.warnings;
    let all = warnings(&plain_pod());
    assert!(all.len() == 1 && all[0].contains("0444"), "{all:?}");
    assert!(all[0].len() <= 256);
    let owner = warnings(&annotate(plain_pod(), "file-mode.password", "0400"));
    assert!(owner.len() == 1 && owner[0].contains("0400") && owner[0].len() <= 256, "{owner:?}");
    assert_eq!(warnings(&annotate(plain_pod(), "file-mode.password", "0444")), Vec::<String>::new());
    assert_eq!(
        warnings(&pod(&json!({"securityContext": {"fsGroup": 1}, "containers": [{"name": "app"}]}))),
        Vec::<String>::new()
    );
}

#[test]
fn windows_and_static_pods_are_refused() {
    assert_eq!(refused(&json!({"os": {"name": "windows"}, "containers": [{"name": "app"}]})), Refusal::Windows);
    assert!(injected(&pod(&json!({"os": {"name": "linux"}, "containers": [{"name": "app"}]}))).is_ok());
    let mut mirror = plain_pod();
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("x");
    assert_eq!(injected(&mirror).unwrap_err(), Refusal::StaticPod);
}

#[test]
fn each_malformed_pod_is_refused_with_the_place() {
    for (spec, at) in [
        (json!(null), "spec"),
        (json!([]), "spec"),
        (json!({"containers": {}}), "spec.containers"),
        (json!({"containers": ["hunter2"]}), "spec.containers[0]"),
        (json!({"containers": [{}]}), "spec.containers[0].name"),
        (json!({"containers": [{"name": 1}]}), "spec.containers[0].name"),
        (json!({"containers": [{"name": "a", "volumeMounts": {}}]}), "spec.containers[0].volumeMounts"),
        (json!({"containers": [{"name": "a", "volumeMounts": [1]}]}), "spec.containers[0].volumeMounts[0]"),
        (json!({"initContainers": "x"}), "spec.initContainers"),
        (json!({"volumes": "x"}), "spec.volumes"),
        (json!({"volumes": [1]}), "spec.volumes[0]"),
    ] {
        assert_eq!(refused(&spec), Refusal::Malformed { at: at.to_owned() });
    }
}

#[test]
fn a_configuration_too_long_for_the_environment_is_refused() {
    let mut before = plain_pod();
    for n in 0..900 {
        let secret = format!("payments/{}{:02}#password", "x".repeat(80), n % 100);
        before = annotate(before, &format!("secret.file-{n:05}"), &secret);
    }
    assert_eq!(injected(&before).unwrap_err(), Refusal::TooManyFiles);
}

#[test]
fn a_pod_of_a_megabyte_is_patched_within_a_tenth_of_a_second() {
    let env: Vec<Value> = (0..15_000).map(|n| json!({"name": format!("V{n}"), "value": "x".repeat(40)})).collect();
    let before = pod(&json!({"containers": [{"name": "app", "env": env}]}));
    let text = before.to_string();
    assert!(text.len() > 1_000_000);
    let start = std::time::Instant::now();
    let read: Value = serde_json::from_str(&text).unwrap();
    let injection =
        strongroom_injector::annotations::parse(read["metadata"]["annotations"].as_object().unwrap()).unwrap().unwrap();
    let mutation = strongroom_injector::mutate(&read, &injection, &crate::support::settings()).unwrap();
    // A build without optimisation takes several times as long.
    let bound = std::time::Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 100 });
    assert!(start.elapsed() < bound, "{:?}", start.elapsed());
    assert!(serde_json::to_vec(&mutation.patch).unwrap().len() < 10_000);
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,8}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("x-[a-z]{1,5}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// An object of unknown fields with a name.
fn named(prefix: &'static str) -> impl Strategy<Value = Value> {
    ("[a-z]{1,6}", prop::collection::btree_map("x-[a-z]{1,5}", any_value(), 0..4)).prop_map(move |(name, fields)| {
        let mut object: Map<String, Value> = fields.into_iter().collect();
        object.insert("name".to_owned(), json!(format!("{prefix}{name}")));
        Value::Object(object)
    })
}

fn optional_list(item: impl Strategy<Value = Value>) -> impl Strategy<Value = Option<Vec<Value>>> {
    prop::option::of(prop::collection::vec(item, 0..4))
}

fn set(mut object: Value, field: &str, value: Option<Vec<Value>>) -> Value {
    if let Some(value) = value {
        object[field] = json!(value);
    }
    object
}

fn any_container() -> impl Strategy<Value = Value> {
    (named("c-"), optional_list(named("v-")), prop::option::of(0_i64..3)).prop_map(|(container, mounts, user)| {
        let mut container = set(container, "volumeMounts", mounts);
        if let Some(user) = user {
            container["securityContext"] = json!({"runAsUser": user, "x-unknown": [1]});
        }
        container
    })
}

fn any_pod() -> impl Strategy<Value = Value> {
    let lists = (optional_list(any_container()), optional_list(any_container()), optional_list(named("v-")));
    (named("x-"), lists, any_value()).prop_map(|(spec, (containers, init, volumes), unknown)| {
        let spec = set(set(set(spec, "containers", containers), "initContainers", init), "volumes", volumes);
        let mut pod = pod(&spec);
        pod["x-unknown"] = unknown.clone();
        pod["status"] = unknown;
        pod
    })
}

/// Takes away what injection adds; a list that was not there before goes when it is empty.
fn without_ours(before: &Value, mut after: Value) -> Value {
    fn strip(list: &str, before: &Value, after: &mut Value, ours: &[&str]) {
        if let Some(items) = after.get_mut(list).and_then(Value::as_array_mut) {
            items.retain(|item| !ours.contains(&item["name"].as_str().unwrap_or_default()));
            if items.is_empty() && before.get(list).is_none() {
                after.as_object_mut().unwrap().remove(list);
            }
        }
    }
    strip("volumes", &before["spec"], &mut after["spec"], &["strongroom-secrets", "strongroom-token"]);
    strip("initContainers", &before["spec"], &mut after["spec"], &["strongroom-agent"]);
    for list in ["initContainers", "containers"] {
        for index in 0..before["spec"][list].as_array().map_or(0, Vec::len) {
            let original = before["spec"][list][index].clone();
            strip("volumeMounts", &original, &mut after["spec"][list][index], &["strongroom-secrets"]);
        }
    }
    after
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rest_of_any_pod_is_unchanged_and_twice_is_once(before in any_pod()) {
        let (after, _) = injected(&before).unwrap();
        prop_assert_eq!(&after["spec"]["initContainers"][0]["name"], "strongroom-agent");
        prop_assert_eq!(&without_ours(&before, after.clone()), &before);
        let (twice, mutation) = injected(&after).unwrap();
        prop_assert!(mutation.patch.is_empty());
        prop_assert_eq!(twice, after);
    }
}
