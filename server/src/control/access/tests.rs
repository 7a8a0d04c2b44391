use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, StatusCode};
use axum::routing::any;
use tower::ServiceExt;

use super::*;
use crate::control::listen::{Certificate, ListenerKind};

const METHOD_OF: [(&str, Right); 6] = [
    ("/inference.GRPCInferenceService/ModelInfer", Right::Infer),
    (
        "/inference.GRPCInferenceService/ModelConfig",
        Right::Inspect,
    ),
    ("/inference.GRPCInferenceService/ServerLive", Right::Health),
    ("/adjoin.control.v1.Admin/Drain", Right::Control),
    (
        "/inference.GRPCInferenceService/SystemSharedMemoryRegister",
        Right::Regions,
    ),
    (
        "/inference.GRPCInferenceService/LogSettings",
        Right::Settings,
    ),
];

fn no_files() -> AccessConfig {
    AccessConfig {
        tls: None,
        client_rights: None,
        token_file: None,
        tcp_rights: None,
        control_uids: Vec::new(),
    }
}

fn user(uid: u32) -> Caller {
    Caller::new(Peer::Unix { uid, gid: 0 }, ListenerKind::Control)
}

fn remote(is_certified: bool) -> Caller {
    let certificate = Certificate {
        names: vec!["client".into()],
    };
    let peer = Peer::Tcp {
        address: SocketAddr::from(([192, 0, 2, 1], 1)),
        certificate: is_certified.then(|| Arc::new(certificate)),
    };
    Caller::new(peer, ListenerKind::Grpc)
}

fn bearing(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// The rights that a caller has, found by calling a method for each.
fn rights(access: &Access, caller: &Caller, headers: &HeaderMap) -> Vec<Right> {
    let has = |method| access.check_method(method, Some(caller), headers).is_ok();
    METHOD_OF
        .into_iter()
        .filter(|(method, _)| has(method))
        .map(|(_, right)| right)
        .collect()
}

const TOKEN: &str = "correct-horse-battery";

/// With a file of a token that may infer and control.
fn with_tokens() -> Access {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{TOKEN} infer,control\n")).unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = AccessConfig {
        token_file: Some(file.path().to_owned()),
        ..no_files()
    };
    Access::load(&config, &[]).unwrap()
}

#[test]
fn local_users_have_what_the_directory_and_the_lists_give() {
    use Right::{Control, Health, Infer, Inspect, Regions, Settings};
    let of = |allow: &[u32], control: &[u32], uid| {
        let config = AccessConfig {
            control_uids: control.to_vec(),
            ..no_files()
        };
        let mut access = Access::load(&config, allow).unwrap();
        access.own_uid = 500;
        rights(&access, &user(uid), &HeaderMap::new())
    };
    let all = Right::ALL.to_vec();
    assert_eq!(of(&[], &[], 1000), [Infer, Inspect, Health, Regions]);
    assert_eq!(of(&[], &[], 500), all);
    assert_eq!(of(&[], &[], 0), all);
    assert_eq!(of(&[], &[1000], 1000), all);
    assert_eq!(of(&[7], &[], 1000), [Health]);
    assert_eq!(of(&[7], &[], 7), [Infer, Inspect, Health, Regions]);
    assert_eq!(of(&[7], &[], 0), [Inspect, Health, Control, Settings]);
    assert_eq!(
        of(&[7], &[1000], 1000),
        [Inspect, Health, Control, Settings]
    );
}

#[test]
fn remote_callers_without_anything_to_show_never_control() {
    let access = Access::load(&no_files(), &[]).unwrap();
    let open = [Right::Infer, Right::Inspect, Right::Health];
    assert_eq!(rights(&access, &remote(false), &HeaderMap::new()), open);
    let config = AccessConfig {
        tcp_rights: Some(Rights::of(&[Right::Health, Right::Regions])),
        ..no_files()
    };
    let access_of_two = Access::load(&config, &[]).unwrap();
    assert_eq!(
        rights(&access_of_two, &remote(false), &HeaderMap::new()),
        [Right::Health, Right::Regions]
    );
    // Without a file there is nothing to compare a token with.
    let header = bearing(&["Bearer anything-at-all-here"]);
    assert_eq!(rights(&access, &remote(false), &header), open);
}

#[test]
fn a_token_gives_the_rights_of_its_line_and_health_needs_none() {
    let access = with_tokens();
    let check = |headers: &HeaderMap| {
        METHOD_OF.map(|(method, _)| access.check_method(method, Some(&remote(false)), headers))
    };
    let header = bearing(&[&format!("bEaReR  {TOKEN} ")]);
    assert_eq!(
        rights(&access, &remote(false), &header),
        [Right::Infer, Right::Health, Right::Control]
    );
    assert_eq!(check(&header)[1], Err(Refusal::Denied(Right::Inspect)));
    assert_eq!(
        check(&HeaderMap::new())[0],
        Err(Refusal::TokenMissing(Right::Infer))
    );
    let known = format!("Bearer {TOKEN}");
    for wrong in [
        &["Bearer correct-horse-batterz"][..],
        &["Bearer "],
        &["Bearer"],
        &[TOKEN],
        &[&format!("Basic {TOKEN}")],
        &[&format!("Bearer{TOKEN}")],
        &[&known, &known],
        &[""],
    ] {
        let headers = bearing(wrong);
        let found = check(&headers);
        assert_eq!(
            found[0],
            Err(Refusal::TokenWrong(Right::Infer)),
            "{wrong:?}"
        );
        assert_eq!(found[2], Ok(None), "health, with {wrong:?}");
    }
    // Over a unix socket the kernel says who calls, and no token is asked for.
    assert!(
        access
            .check_method(METHOD_OF[0].0, Some(&user(1000)), &HeaderMap::new())
            .is_ok()
    );
}

#[test]
fn a_certificate_gives_its_rights_and_a_token_adds_to_them() {
    let mut access = with_tokens();
    access.certificate_rights = Rights::of(&[Right::Regions]);
    let certified = remote(true);
    assert_eq!(
        rights(&access, &certified, &HeaderMap::new()),
        [Right::Health, Right::Regions]
    );
    assert_eq!(
        access.check_method(METHOD_OF[0].0, Some(&certified), &HeaderMap::new()),
        Err(Refusal::Denied(Right::Infer))
    );
    let header = bearing(&[&format!("Bearer {TOKEN}")]);
    assert_eq!(
        rights(&access, &certified, &header),
        [Right::Infer, Right::Health, Right::Control, Right::Regions]
    );
    let wrong = bearing(&["Bearer wrong"]);
    assert_eq!(rights(&access, &certified, &wrong), [Right::Health]);
}

#[test]
fn what_is_not_in_the_table_is_refused_and_so_is_a_caller_nobody_knows() {
    let access = Access::load(&no_files(), &[]).unwrap();
    let none = HeaderMap::new();
    for path in [
        "",
        "/",
        "/inference.GRPCInferenceService/",
        "/inference.GRPCInferenceService/ModelInfer/",
        "/inference.GRPCInferenceService/modelInfer",
        "//inference.GRPCInferenceService/ModelInfer",
        "/grpc.reflection.v2.ServerReflection/ServerReflectionInfo",
    ] {
        let checked = access.check_method(path, Some(&user(0)), &none);
        assert_eq!(checked, Err(Refusal::Unknown), "{path}");
    }
    for template in ["", "/v2/models", "/v2/models/digits/infer"] {
        let checked = access.check_route(template, Some(&user(0)), &none);
        assert_eq!(checked, Err(Refusal::Unknown), "{template}");
    }
    assert_eq!(
        access.check_method(METHOD_OF[0].0, None, &none),
        Err(Refusal::Denied(Right::Infer))
    );
}

#[test]
fn refusals_name_the_right_and_never_the_token() {
    for refusal in [
        Refusal::Denied(Right::Control),
        Refusal::TokenMissing(Right::Control),
        Refusal::TokenWrong(Right::Control),
    ] {
        let text = refusal.to_string();
        assert!(
            text.contains("\"control\"") && !text.contains(TOKEN),
            "{text}"
        );
    }
}

/// A router that has every route of the table, each answering 200.
fn all_routes(access: Access) -> Router {
    let all = |router: Router, template: &String| router.route(template, any(|| async {}));
    let router = table::routes().keys().fold(Router::new(), all);
    guarded(router, Arc::new(access))
}

/// The status of a request to a path, by a caller.
fn status(router: &Router, path: &str, caller: Option<Caller>) -> StatusCode {
    let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
    if let Some(caller) = caller {
        request.extensions_mut().insert(ConnectInfo(caller));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let answer = runtime.block_on(router.clone().oneshot(request));
    answer.unwrap().status()
}

#[test]
fn every_route_of_the_table_can_be_served_and_is_refused_without_its_right() {
    let open = all_routes(Access::load(&no_files(), &[]).unwrap());
    let closed = all_routes(with_tokens());
    for (template, right) in table::routes() {
        let path = template.replace('{', "a").replace('}', "z");
        let forbidden = match right {
            Right::Health => StatusCode::OK,
            _ => StatusCode::FORBIDDEN,
        };
        assert_eq!(status(&open, &path, None), forbidden, "{path}");
        let remote_may = match right {
            Right::Infer | Right::Inspect | Right::Health => StatusCode::OK,
            Right::Control | Right::Regions | Right::Settings => StatusCode::FORBIDDEN,
        };
        assert_eq!(
            status(&open, &path, Some(remote(false))),
            remote_may,
            "{path}"
        );
        let without_token = match right {
            Right::Health => StatusCode::OK,
            _ => StatusCode::UNAUTHORIZED,
        };
        assert_eq!(
            status(&closed, &path, Some(remote(false))),
            without_token,
            "{path}"
        );
        assert_eq!(
            status(&closed, &path, Some(user(0))),
            StatusCode::OK,
            "{path}"
        );
    }
    for path in [
        "/",
        "/v2/other",
        "/v2//models/add/infer",
        "/v2/models/a/b/infer",
    ] {
        let found = status(&open, path, Some(user(0)));
        assert_eq!(found, StatusCode::NOT_FOUND, "{path}");
    }
}

#[test]
fn a_route_that_the_table_does_not_have_is_refused_though_the_router_has_it() {
    let router = Router::new().route("/v2/forgotten", any(|| async {}));
    let router = guarded(router, Arc::new(Access::load(&no_files(), &[]).unwrap()));
    let found = status(&router, "/v2/forgotten", Some(user(0)));
    assert_eq!(found, StatusCode::NOT_FOUND);
}
