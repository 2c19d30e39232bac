//! Asked from asynchronous code: bounded, and given up on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use sluicegate::ledger::history::{Error, Filter, History, Work};

use crate::days::row;
use crate::{DAY, files, ledger};

#[tokio::test]
async fn few_questions_are_answered_at_once_and_the_others_wait() {
    let (folder, _) = ledger(&[row(1, DAY, None)]);
    let history = History::new(files(&folder));
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let answers: Vec<_> = (0..20)
        .map(|_| {
            let (history, running, most) = (history.clone(), running.clone(), most.clone());
            tokio::spawn(async move {
                history
                    .ask(Work::Page, move |reader| {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let page = reader.sessions(&Filter::default(), None, 10);
                        running.fetch_sub(1, Ordering::SeqCst);
                        page
                    })
                    .await
            })
        })
        .collect();
    for answer in answers {
        assert_eq!(answer.await.unwrap().unwrap().records.len(), 1);
    }
    assert!(most.load(Ordering::SeqCst) <= 2, "{most:?} at once");
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_not_finished() {
    let rows: Vec<_> = (0..50).map(|n| row(n, DAY + n, None)).collect();
    let (folder, _) = ledger(&rows);
    let history = History::new(files(&folder));
    let (began, has_begun) = mpsc::channel();
    let (left, has_left) = mpsc::channel();
    let (end, ended) = tokio::sync::oneshot::channel();
    let question = tokio::spawn({
        let history = history.clone();
        async move {
            history
                .ask(Work::Scan, move |reader| {
                    began.send(()).unwrap();
                    has_left.recv().unwrap();
                    let _ = end.send(reader.sessions(&Filter::default(), None, 10));
                    Ok(())
                })
                .await
        }
    });
    tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
    question.abort();
    assert!(question.await.unwrap_err().is_cancelled());
    left.send(()).unwrap();
    assert_eq!(ended.await.unwrap().unwrap_err(), Error::GivenUp);
    // Its turn is free again.
    assert_eq!(
        history.ask(Work::Scan, |reader| reader.sessions(&Filter::default(), None, 9)).await.unwrap().records.len(),
        9
    );
}

#[tokio::test]
async fn a_queue_that_is_full_refuses_and_pages_do_not_wait_for_sums() {
    let (folder, _) = ledger(&[]);
    let history = History::new(files(&folder));
    let (go, wait) = mpsc::channel::<()>();
    let busy = tokio::spawn({
        let history = history.clone();
        async move { history.ask(Work::Scan, move |_| wait.recv().map_err(|_| Error::Defect)).await }
    });
    tokio::task::yield_now().await;
    let waiting: Vec<_> = (0..64)
        .map(|_| {
            let history = history.clone();
            tokio::spawn(async move { history.ask(Work::Scan, |_| Ok(())).await })
        })
        .collect();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(history.ask(Work::Scan, |_| Ok(())).await, Err(Error::Busy));
    // Pages do not wait for sums.
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), history.ask(Work::Page, |_| Ok(()))).await, Ok(Ok(())));
    go.send(()).unwrap();
    assert_eq!(busy.await.unwrap(), Ok(()));
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn a_defect_in_one_answer_is_told_and_harms_no_other() {
    let (folder, _) = ledger(&[row(1, DAY, None)]);
    let history = History::new(files(&folder));
    let broken = history.ask(Work::Scan, |_| -> Result<(), Error> { panic!("on purpose") }).await;
    assert_eq!(broken, Err(Error::Defect));
    assert!(history.ask(Work::Scan, |reader| reader.sessions(&Filter::default(), None, 1)).await.is_ok());
}
