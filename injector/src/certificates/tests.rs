use super::*;
use strongroom_core::{Clock, FixedClock};

const HOST: &str = "strongroom-injector.strongroom.svc";

fn clock() -> FixedClock {
    FixedClock::new(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap())
}

/// Takes steps until there is nothing left to do, with the bundle published after each; the steps taken.
fn settle(mut all: Certificates, clock: &FixedClock) -> (Certificates, Vec<Step>) {
    let mut steps = Vec::new();
    for _ in 0..10 {
        let bundle = all.bundle();
        match all.next_step(HOST, &[bundle.as_bytes()], clock.now()).unwrap() {
            Step::Keep => return (all, steps),
            step => {
                all = all.take(step, HOST, clock.now()).unwrap();
                steps.push(step);
            }
        }
    }
    panic!("no end: {steps:?}");
}

#[test]
fn new_certificates_are_trusted_by_their_bundle_and_need_nothing() {
    let clock = clock();
    let all = Certificates::create(HOST, clock.now()).unwrap();
    let bundle = all.bundle();
    assert!(all.trusted_by(bundle.as_bytes(), HOST, clock.now()));
    assert!(!all.trusted_by(bundle.as_bytes(), "other.strongroom.svc", clock.now()));
    assert!(!all.trusted_by(b"", HOST, clock.now()));
    assert!(!all.trusted_by(b"garbage", HOST, clock.now()));
    let other = Certificates::create(HOST, clock.now()).unwrap();
    assert!(!all.trusted_by(other.bundle().as_bytes(), HOST, clock.now()));
    assert_eq!(all.next_step(HOST, &[bundle.as_bytes()], clock.now()), Ok(Step::Keep));
    assert!(all.serving().is_ok());
}

#[test]
fn the_secret_holds_everything() {
    let clock = clock();
    let mut all = Certificates::create(HOST, clock.now()).unwrap();
    all = all.take(Step::AnnounceNext, HOST, clock.now()).unwrap().take(Step::SwitchToNext, HOST, clock.now()).unwrap();
    for step in [Step::AnnounceNext, Step::NotePublished] {
        all = all.take(step, HOST, clock.now()).unwrap();
    }
    let data = all.expose_data();
    assert_eq!(
        data.keys().collect::<Vec<_>>(),
        ["ca.crt", "ca.key", "next-ca.crt", "next-ca.key", "previous-ca.crt", "published-at", "tls.crt", "tls.key"]
    );
    let read = Certificates::from_data(&data).unwrap().unwrap();
    assert_eq!(read.expose_data(), data);
    assert_eq!(read.bundle(), all.bundle());
    assert!(Certificates::from_data(&Data::new()).unwrap().is_none());
}

#[test]
fn each_damaged_entry_of_the_secret_is_named() {
    let good = Certificates::create(HOST, clock().now())
        .unwrap()
        .take(Step::AnnounceNext, HOST, clock().now())
        .unwrap()
        .take(Step::NotePublished, HOST, clock().now())
        .unwrap()
        .expose_data();
    let other = Certificates::create(HOST, clock().now()).unwrap().expose_data();
    for (entry, named) in [
        ("ca.crt", "ca.crt"),
        ("ca.key", "ca.key"),
        ("tls.crt", "tls.crt"),
        ("tls.key", "tls.key"),
        ("next-ca.key", "next-ca.key"),
        ("next-ca.crt", "next-ca.crt"),
        ("published-at", "published-at"),
    ] {
        let mut damaged = good.clone();
        damaged.insert(entry.to_owned(), b"hunter2".to_vec());
        let error = Certificates::from_data(&damaged).unwrap_err();
        assert_eq!(error, CertificateError::Entry { entry: named });
        assert!(!error.to_string().contains("hunter2"));
        if !matches!(entry, "next-ca.crt" | "published-at") {
            damaged.remove(entry);
            assert_eq!(
                Certificates::from_data(&damaged).unwrap_err(),
                CertificateError::Entry { entry: named },
                "{entry} missing"
            );
        }
    }
    for entry in ["ca.key", "tls.key"] {
        let mut swapped = good.clone();
        swapped.insert(entry.to_owned(), other[entry].clone());
        assert_eq!(Certificates::from_data(&swapped).unwrap_err(), CertificateError::Entry { entry });
    }
}

#[test]
fn the_serving_certificate_is_renewed_after_two_thirds_of_its_life() {
    let clock = clock();
    let all = Certificates::create(HOST, clock.now()).unwrap();
    clock.advance(Duration::days(4) + Duration::hours(15));
    let (all, steps) = settle(all, &clock);
    assert_eq!(steps, []);
    clock.advance(Duration::hours(1));
    let (all, steps) = settle(all, &clock);
    assert_eq!(steps, [Step::RenewLeaf]);
    clock.advance(Duration::days(6));
    assert!(all.trusted_by(all.bundle().as_bytes(), HOST, clock.now()));
}

#[test]
fn another_host_name_renews_the_serving_certificate() {
    let clock = clock();
    let all = Certificates::create("old.strongroom.svc", clock.now()).unwrap();
    assert_eq!(settle(all, &clock).1, [Step::RenewLeaf]);
}

#[test]
fn a_new_ca_is_published_before_the_serving_certificate_switches() {
    let clock = clock();
    let old = Certificates::create(HOST, clock.now()).unwrap();
    let old_bundle = old.bundle();
    clock.advance(Duration::days(306));
    let (all, steps) = settle(old, &clock);
    assert_eq!(steps, [Step::AnnounceNext, Step::NotePublished, Step::RenewLeaf]);
    let both = all.bundle();
    assert!(both.starts_with(&old_bundle) && both.len() > old_bundle.len());
    assert!(all.trusted_by(old_bundle.as_bytes(), HOST, clock.now()), "the old bundle still does");

    clock.advance(PROPAGATION);
    assert_eq!(
        all.next_step(HOST, &[both.as_bytes()], clock.now() - Duration::seconds(1)),
        Ok(Step::Keep),
        "published just now"
    );
    let (all, steps) = settle(all, &clock);
    assert_eq!(steps, [Step::SwitchToNext]);
    assert!(all.trusted_by(both.as_bytes(), HOST, clock.now()));
    assert!(!all.trusted_by(old_bundle.as_bytes(), HOST, clock.now()));
    assert!(all.bundle().contains(&old_bundle), "other replicas may serve the old one for a while");

    clock.advance(Duration::days(60));
    let (all, steps) = settle(all, &clock);
    assert_eq!(steps, [Step::ForgetPrevious, Step::RenewLeaf]);
    assert!(!all.bundle().contains(&old_bundle));
}

#[test]
fn the_time_until_the_switch_counts_from_when_the_new_ca_was_seen_live() {
    let clock = clock();
    let old = Certificates::create(HOST, clock.now()).unwrap();
    let old_bundle = old.bundle();
    let all = old.take(Step::AnnounceNext, HOST, clock.now()).unwrap();
    let both = all.bundle();
    let (both, old_only) = ([both.as_bytes()], [old_bundle.as_bytes()]);
    // Announced, but for a day nobody could publish it.
    clock.advance(Duration::days(1));
    for live in [&[][..], &old_only, &[both[0], old_only[0]]] {
        assert_eq!(all.next_step(HOST, live, clock.now()), Ok(Step::Keep), "not published everywhere");
    }
    assert_eq!(all.next_step(HOST, &both, clock.now()), Ok(Step::NotePublished));
    let all = all.take(Step::NotePublished, HOST, clock.now()).unwrap();
    clock.advance(PROPAGATION - Duration::seconds(1));
    assert_eq!(all.next_step(HOST, &both, clock.now()), Ok(Step::Keep));
    // Somebody takes it away: the time begins anew.
    assert_eq!(all.next_step(HOST, &old_only, clock.now()), Ok(Step::NoteUnpublished));
    let all = all.take(Step::NoteUnpublished, HOST, clock.now()).unwrap();
    clock.advance(Duration::seconds(1));
    assert_eq!(all.next_step(HOST, &both, clock.now()), Ok(Step::NotePublished));
    let all = all.take(Step::NotePublished, HOST, clock.now()).unwrap();
    assert_eq!(all.next_step(HOST, &both, clock.now()), Ok(Step::Keep));
    clock.advance(PROPAGATION);
    assert_eq!(all.next_step(HOST, &both, clock.now()), Ok(Step::SwitchToNext));
}

#[test]
fn bundles_are_compared_by_their_certificates() {
    let clock = clock();
    let all = Certificates::create(HOST, clock.now()).unwrap();
    let one = all.bundle();
    let all = all.take(Step::AnnounceNext, HOST, clock.now()).unwrap();
    let both = all.bundle();
    let other = both.strip_prefix(&one).unwrap();
    for (bundle, same) in [
        (both.clone(), true),
        (format!("{other}{one}"), true),
        (format!("# two\r\n{}\n\n", both.replace('\n', "\r\n")), true),
        (format!("{both}{one}"), true),
        (one.clone(), false),
        (format!("{both}{}", Certificates::create(HOST, clock.now()).unwrap().bundle()), false),
        (String::new(), false),
        ("garbage".to_owned(), false),
    ] {
        assert_eq!(all.published_by(bundle.as_bytes()), same, "{bundle}");
    }
}

#[test]
fn what_is_served_is_overdue_after_five_sixths_of_its_life() {
    let clock = clock();
    let serving = Serving::default();
    assert!(!serving.is_overdue(clock.now()) && !serving.trusted_by(b"", HOST, clock.now()));
    let all = Certificates::create(HOST, clock.now()).unwrap();
    let bundle = all.bundle();
    serving.set(all.serving().unwrap());
    for (at, overdue, trusted) in [(0, false, true), (139, false, true), (141, true, true), (168, true, false)] {
        let now = clock.now() + Duration::hours(at);
        assert_eq!(serving.is_overdue(now), overdue, "{at} hours");
        assert_eq!(serving.trusted_by(bundle.as_bytes(), HOST, now + Duration::seconds(1)), trusted, "{at} hours");
    }
}

#[test]
fn five_years_of_daily_checks_never_leave_an_untrusted_certificate() {
    let clock = clock();
    let mut all = Certificates::create(HOST, clock.now()).unwrap();
    let mut switches = 0;
    for _ in 0..5 * 365 {
        let published = all.bundle();
        let (next, steps) = settle(all, &clock);
        all = next;
        switches += steps.iter().filter(|step| **step == Step::SwitchToNext).count();
        assert!(!steps.contains(&Step::StartOver));
        assert!(all.trusted_by(published.as_bytes(), HOST, clock.now()), "{steps:?}");
        clock.advance(Duration::days(1));
    }
    assert!(switches >= 5);
}

#[test]
fn after_a_sleep_longer_than_the_ca_all_is_made_anew() {
    let clock = clock();
    let all = Certificates::create(HOST, clock.now()).unwrap();
    clock.advance(Duration::days(400));
    let (all, steps) = settle(all, &clock);
    assert_eq!(steps, [Step::StartOver]);
    assert!(all.trusted_by(all.bundle().as_bytes(), HOST, clock.now()));
}

#[test]
fn no_key_is_shown() {
    let all = Certificates::create(HOST, clock().now()).unwrap();
    let text = format!("{all:?}");
    assert!(!text.contains("PRIVATE KEY") && text.contains("SecretBytes(..)"));
}
