"""Step times of a server from what it did under load: a request table, a log of `api load`, batches timed in process,
or published points of latency against concurrency; several of one model count together. Without any of these, predicted
from the logs of other models on that machine and software, or from what others served with an engine (--hardware,
--software).

One step takes a fixed time, and some for each prompt token, sequence, cached token and, of a mixture, for the share of
the experts that its tokens visit.
"""

from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import check_format, findings_in_a_line, print_json, print_table, write_table
from idealized_runtime.cli.serving.flags import add_scheduler, describe, scheduler_of

_OTHERS = "files to fit steps to, --logs"
EXAMPLES = """\
examples: idealized-runtime serving fit requests.csv --max-num-seqs 128 --max-num-batched-tokens 2048 --out steps.json
          idealized-runtime serving fit logs/api/NAME-load.jsonl --out processed_jsons/NAME.json
          idealized-runtime serving fit --logs a100 --model config.json --out steps.json
          idealized-runtime serving fit --hardware H100 --software vllm --model config.json --out steps.json
          idealized-runtime serving fit requests.csv --out perf-parms.yaml
"""


def add_arguments(parser):
    """Flags of the command."""
    parser.add_argument(
        "evidence", nargs="*", metavar="REQUESTS_OR_LOG",
        help="tables with a row a request (arrival_s, num_prompt_tokens, num_output_tokens, time_to_first_token_s, "
        "runtime_s) or a point (concurrency, ...); logs of `api load`; logs of batches, or a folder of them",
    )  # fmt: skip
    add_shared(
        parser, "--model",
        help="its name in the parameter file; a name of the registry or a config.json tells how many experts it has "
        "(default: as the file names it)",
    )  # fmt: skip
    add_shared(parser, "--logs", help="folder of timing logs of other models, to predict steps that nobody measured")
    add_shared(parser, "--software", help="of logs of several stacks, the one to go by; without logs, the engine: vllm")
    add_shared(parser, "--dtype", "--columns", "--hardware", "--num-accelerators")
    add_scheduler(parser, "continuous batching of 256 sequences, 8192 tokens a step, one engine")
    add_shared(
        parser, "--out",
        help="file to write, by its ending: .json, a parameter file, where one that is there keeps its other models "
        "and keys; .csv, a table of steps for other simulators; .yaml, perfParms of llm-d's VariantAutoscaling "
        "(llmd.ai/v1alpha1 of 2025; its autoscaler has none since 0.9)",
    )  # fmt: skip
    add_shared(parser, "--level", "--json")


def run(arguments) -> int:
    """Fit the steps, print them with their intervals, and write them where asked to."""
    from idealized_runtime.cli.served import is_served
    from idealized_runtime.serving.scheduler import Scheduler

    if arguments.out is not None:
        check_format(arguments.out, (".json", ".csv", ".yaml"))
    if arguments.evidence and arguments.logs is not None:
        raise ValueError("give either files to fit steps to, or --logs to predict them from, with --model")
    find = _fitted if arguments.evidence else _served if is_served(arguments, others=_OTHERS) else _predicted
    scheduler = scheduler_of(arguments, Scheduler())
    name, steps, context, origin = find(arguments, scheduler)
    if arguments.out is not None:
        _write(arguments, name, steps, context)
    llm_d = steps.llm_d_numbers(context, level=arguments.level)
    if arguments.json:
        print_json({"model": name, "steps": steps.to_json(), "num_context_tokens": context,
                    "llm_d": llm_d.to_dict("index")})  # fmt: skip
        return DONE
    print(f"{name}, {origin}; {describe(steps.scheduler)}\n")
    print_table(steps.table(level=arguments.level), with_index=True)
    print(f"\nllm-d's numbers, ms, with {context:.0f} tokens in the cache of a sequence")
    print_table(llm_d.rename_axis("number"), with_index=True)
    print(f"\nlower and upper: the {100 * arguments.level:g} % interval")
    return DONE


def _write(arguments, name, steps, context):
    """Write the steps in the form that the ending of the file names."""
    from idealized_runtime.records.files import replacing
    from idealized_runtime.serving.steps import llm_d_profile, write_steps

    match arguments.out.suffix:
        case ".json":
            write_steps(arguments.out, name, steps)
        case ".csv":
            write_table(steps.step_table(level=arguments.level), arguments.out)
        case ".yaml":
            with replacing(arguments.out) as part:
                part.write_text(llm_d_profile(name, steps, context, level=arguments.level), encoding="utf-8")


def _fitted(arguments, scheduler) -> tuple:
    """Name, steps, mean tokens in the cache of a sequence, and what it is fitted to in words."""
    from idealized_runtime.serving.evidence import expert_share_of, read_evidence
    from idealized_runtime.serving.fitting import fit_steps

    for flag in ("software", "logs", "dtype"):
        if getattr(arguments, flag) is not None:
            raise ValueError(f"--{flag} is for steps that are predicted, without files to fit")
    evidence, name, files = read_evidence(
        arguments.evidence, scheduler, columns=arguments.columns, model=arguments.model
    )
    name, share = expert_share_of(name)
    steps = fit_steps(
        evidence, expert_share=share, hardware=arguments.hardware or "", num_accelerators=arguments.num_accelerators,
        sources=files,
    )  # fmt: skip
    context = sum(item.num_context_tokens for item in evidence) / len(evidence)
    return name, steps, context, "from " + ", ".join(f"{len(item)} {item.unit}" for item in evidence)


def _predicted(arguments, scheduler) -> tuple:
    """The same of a model that nobody served."""
    from idealized_runtime.architectures import read_architecture
    from idealized_runtime.measurements.shipped import read_stack
    from idealized_runtime.prediction import fit_predictor, predict_priced
    from idealized_runtime.serving.predicted import predict_steps

    if arguments.model is None:
        raise ValueError("--model must be given with --logs: a name of the registry, or the path of a config.json")
    with findings_in_a_line(arguments.logs):
        timed = read_stack(arguments.logs, software=arguments.software)
        predictor = fit_predictor(timed.values())
    architecture = read_architecture(arguments.model, suggested=timed)
    context = min(2048, architecture.max_position_embeddings)
    model = predict_priced(
        architecture, predictor, num_context_tokens=context, hardware=arguments.hardware,
        num_accelerators=arguments.num_accelerators,
    )  # fmt: skip
    steps = predict_steps(model.runtimes, scheduler, hardware=model.hardware, software=model.software)
    return architecture.name, steps, context / 2, f"predicted from the logs of {len(timed)} models on {model.hardware}"


def _served(arguments, scheduler) -> tuple:
    """The same of a model on a server, from what others served."""
    from idealized_runtime.architectures import read_architecture
    from idealized_runtime.cli.served import where_served
    from idealized_runtime.serving.served import predict_served

    if arguments.model is None:
        raise ValueError("--model must be given with --software: a name of the registry, or the path of a config.json")
    architecture = read_architecture(arguments.model)
    context = min(2048, architecture.max_position_embeddings)
    served = predict_served(architecture, num_context_tokens=context, **where_served(arguments))
    where = f"{served.tensor_parallel_size} x {served.accelerator.name}, weights in {served.dtype}"
    return architecture.name, served.steps(scheduler), context / 2, f"{where}, {served.origin}"
