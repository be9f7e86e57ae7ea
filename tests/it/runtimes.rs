use crate::harness::{Home, block_on, check, fill};
use sluicedb::Db;

async fn exercise(db: &Db) {
    let mut expected = fill(db, 200, 50).await;
    db.flush().await.unwrap();
    for n in 0..100 {
        db.delete(format!("key{n:04}")).await.unwrap();
        expected.remove(format!("key{n:04}").as_bytes());
    }
    db.compact().await.unwrap();
    db.sync().await.unwrap();
    check(db, &expected).await.unwrap();
    db.close().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn in_a_current_thread_runtime() {
    let home = Home::new();
    exercise(&home.builder().open().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_multi_thread_runtime() {
    let home = Home::new();
    let db = home.builder().open().await.unwrap();
    // The same inside a task: the futures are `Send`.
    tokio::spawn(async move { exercise(&db).await }).await.unwrap();
}

#[test]
fn without_any_runtime() {
    let home = Home::new();
    block_on(async { exercise(&home.builder().open().await.unwrap()).await });
}

/// A runtime without timers and without I/O: the engine needs neither.
#[test]
fn in_a_bare_runtime() {
    let home = Home::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { exercise(&home.builder().open().await.unwrap()).await });
}

#[test]
fn one_database_in_several_runtimes_at_once() {
    let home = Home::new();
    let db = home.open();
    let threads: Vec<_> = (0..3)
        .map(|thread| {
            let db = db.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    for n in 0..300 {
                        let key = format!("{thread}/{n}");
                        db.put(&key, &key).await.unwrap();
                        assert_eq!(db.get(&key).await.unwrap().as_deref(), Some(key.as_bytes()));
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(block_on(crate::kit::disk::content(&db)).unwrap().len(), 900);
}

#[test]
fn handles_are_send_sync_and_cheap() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>(_: &T) {}
    shared::<Db>();
    shared::<sluicedb::Snapshot>();
    shared::<sluicedb::Error>();
    shared::<sluicedb::Options>();
    let home = Home::new();
    let db = home.open();
    let held = db.clone();
    let put = async move { held.put("a", "1").await };
    sent(&put);
    let held = db.clone();
    let get = async move { held.get("a").await };
    sent(&get);
    let held = db.clone();
    let compact = async move { held.compact().await };
    sent(&compact);
    sent(&home.builder().open());
    assert!(format!("{db:?}").contains("Db"));
}
