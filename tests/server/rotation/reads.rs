//! What is read while a rotation is half-way.

use serde_json::json;
use strongroom_api::{keys::Rotate, routes};
use strongroom_client::PutOptions;
use strongroom_tests::{TestServer, eventually, fields, path, project};

#[tokio::test]
async fn a_batch_that_meets_two_keys_of_one_project_reads_every_value() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    for name in ["shop/a", "shop/b"] {
        admin.put(&path(name), fields(&[("a", name)]), PutOptions::default()).await.unwrap();
    }
    let (mut sql, mut gate, mut holder) = (server.sql().await, server.sql().await, server.sql().await);
    // The batch has looked at the rules, and waits before it looks at secrets.
    sql.run(
        "ALTER TABLE secrets RENAME TO all_secrets;
         CREATE FUNCTION gate() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$ BEGIN
             WHILE current_query() LIKE '%FROM secrets WHERE path = ANY%' AND NOT pg_try_advisory_xact_lock_shared(77) LOOP PERFORM pg_sleep(0.01); END LOOP;
             RETURN true; END $$;
         CREATE VIEW secrets AS SELECT * FROM all_secrets WHERE gate()",
    )
    .await;
    gate.run("SELECT pg_advisory_lock(77)").await;
    let (mut raw, credential) = (server.connect().await, format!("Bearer {}", server.admin_token()));
    let body = json!({"references": ["shop/b", "shop/a"]}).to_string();
    let batch =
        tokio::spawn(async move { raw.request("POST", routes::SECRETS_READ, Some(&credential), Some(&body)).await });
    let waits = "pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    eventually("the batch waits", async || sql.count(waits).await == 1).await;
    // Meanwhile one of the two is wrapped by the next key, and the other is not yet.
    holder.run("BEGIN; SELECT FROM all_secrets WHERE path = 'shop/a' FOR UPDATE").await;
    admin.rotate(&Rotate::ProjectKey { project: project("shop") }).await.unwrap();
    let wrapped = "secret_versions WHERE project_key_generation = 2";
    eventually("one is wrapped anew", async || sql.count(wrapped).await == 1).await;
    gate.run("SELECT pg_advisory_unlock(77)").await;
    let answer = batch.await.unwrap();
    let results = answer.json()["results"].clone();
    for (index, name) in ["shop/b", "shop/a"].into_iter().enumerate() {
        assert_eq!(results[index]["value"]["fields"]["a"], name, "{}", answer.text());
    }
    holder.run("ROLLBACK").await;
}
