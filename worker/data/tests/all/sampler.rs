use proptest::prelude::*;
use squad_data::Sampler;
use squad_data::sampler::share;

proptest! {
    #[test]
    fn every_example_comes_once_per_epoch(
        lengths in proptest::collection::vec(1usize..400, 1..300),
        micro in 1usize..9, per_step in 1usize..5, seed: u64, epoch in 0usize..4
    ) {
        let sampler = Sampler::new(&lengths, micro, per_step, seed).unwrap();
        let steps = sampler.steps_per_epoch();
        prop_assert_eq!(steps, lengths.len().div_ceil(micro * per_step));
        let mut seen = Vec::new();
        for k in 0..steps {
            let step = sampler.step(epoch * steps + k);
            prop_assert_eq!(step.epoch, epoch as u64);
            let examples: usize = step.micro_batches.iter().map(Vec::len).sum();
            prop_assert_eq!(step.examples, examples);
            if k + 1 < steps {
                prop_assert_eq!(examples, micro * per_step, "only the last step may be short");
            }
            prop_assert!(step.micro_batches.len() <= per_step);
            prop_assert!(step.micro_batches.iter().all(|m| (1..=micro).contains(&m.len())));
            seen.extend(step.micro_batches.concat());
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
    }

    #[test]
    fn steps_are_a_function_of_seed_and_number_alone(
        lengths in proptest::collection::vec(1usize..50, 1..80), seed: u64, jumps in proptest::collection::vec(0usize..60, 1..20)
    ) {
        let (a, b) = (Sampler::new(&lengths, 2, 3, seed).unwrap(), Sampler::new(&lengths, 2, 3, seed).unwrap());
        let in_order: Vec<_> = (0..60).map(|k| a.step(k)).collect();
        for k in jumps {
            prop_assert_eq!(&b.step(k), &in_order[k]);
        }
    }

    #[test]
    fn ranks_cover_the_micro_batches_exactly(micro_batches in 0usize..40, world in 1usize..9) {
        let shares: Vec<Vec<usize>> = (0..world).map(|r| share(micro_batches, r, world).collect()).collect();
        let mut all = shares.concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..micro_batches).collect::<Vec<_>>());
        let sizes = shares.iter().map(Vec::len);
        prop_assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
    }
}

#[test]
fn an_epoch_of_whole_steps_may_end_with_any_batch() {
    // Pairs are sorted by length before their order is shuffled: without the shuffle the
    // last step would have a pair's shorter example, one of the four longest for one seed in five.
    let lengths = [8, 7, 6, 5, 4, 3, 2, 1];
    let last = |seed| Sampler::new(&lengths, 1, 1, seed).unwrap().step(7).micro_batches[0][0];
    let long = (0..400).filter(|seed| last(*seed) < 4).count();
    assert!((150..250).contains(&long), "a long example comes last for {long} of 400 seeds");
}
