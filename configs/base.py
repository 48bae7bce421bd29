"""Every knob of mem1_jax, once: what it is, its unit and range.

Other configs are `base.get_config()` plus differences. The config is locked: a
mistyped name raises. Override on the command line: `--config.ppo.clip=0.1`.
Values here describe the atlas default; sources are named where a value is the
paper's (arXiv 2506.15841).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.domain = 'qa'  # qa (search, answer) | web (open pages, too) | webshop (search, click, buy)
  c.seed = 0  # of everything drawn: tasks, sampling, gaps, minibatches
  c.agent = 'mem1'  # agents/: mem1 | full_context | truncation | threshold | amem
  c.init = ''  # parameters to start from: a folder, atlas/NAME, hf:NAME, gguf:NAME; '' for random
  c.prompt_style = 'atlas'  # text/prompts.py: atlas (terse) | base (full instructions) | chatml
  c.critic = 'separate'  # separate (a network) | lora (on the initial one) | head (on the actor)
  c.reference = 'initial'  # initial: frozen, for the KL term | none: no KL, ppo.kl_coef must be 0
  c.compilation_cache = '.cache/jax'  # folder kept between runs; '' for none

  c.model = ConfigDict()
  c.model.name = 'atlas'  # checkpoint (as init has it) | model/config.py: tiny, atlas, …, qwen3-8b
  c.model.attention = 'auto'  # auto | reference | chunked | tpu | gpu | …_interpret (ops/attention.py)
  c.model.remat = 'none'  # none | dots | attention | full: what the backward pass computes again
  c.model.dtype = 'float32'  # of computation
  c.model.param_dtype = 'float32'  # of the weights; frozen ones (LoRA) may well be bfloat16

  c.lora = ConfigDict()  # adapters beside a frozen base (arXiv 2106.09685), always float32
  c.lora.rank = 0  # of the policy's, in PPO and SFT; 0: no LoRA, every parameter is trained
  c.lora.value_rank = 16  # of the critic's, if critic=lora; 0: only its value head is trained
  c.lora.alpha = 32.0  # > 0; what adapters add is scaled by alpha / rank
  c.lora.targets = ('q', 'k', 'v', 'o', 'gate', 'up', 'down')  # projections that get one

  c.mesh = ConfigDict()  # devices along each axis, ≥ 1; one may be -1 for all that are left
  c.mesh.data = 1  # copies of the model: rows and slots are split over data x fsdp
  c.mesh.fsdp = 1  # slices of every parameter and of the optimiser's state
  c.mesh.tensor = 1  # slices of heads, ffn columns and vocabulary

  c.tokenizer = ConfigDict()
  c.tokenizer.kind = 'sentencepiece'  # sentencepiece | huggingface
  c.tokenizer.path = 'atlas'  # file, folder, hub name, gguf:NAME; atlas: the embedded one

  c.data = ConfigDict()
  c.data.source = 'atlas'  # of questions: atlas | FORMAT:PATH | tfds:NAME:SPLIT; several, by commas
  c.data.fields = ''  # its columns' names: 'question=query,id=qid'; one for each of several, by ;
  c.data.weights = ()  # how often tasks are of each of several sources; (): all alike
  c.data.tfds_dir = ''  # where tensorflow-datasets keeps its files; '' for its own place
  c.data.split = 'train'  # train | validation | test
  c.data.shares = (0.9, 0.05, 0.05)  # of each split, by a hash of the question; the atlas has its own
  c.data.hops = ()  # fewest and most look-ups of a question; (): any
  c.data.question_chars = ()  # fewest and most characters of a question; (): any
  c.data.answer_chars = ()  # fewest and most characters of its longest answer; (): any
  c.data.objectives = (2, 2)  # fewest and most questions of a task; (): those of a verl file as is
  c.data.curriculum = ()  # instead, for training: (from this task on, fewest, most), …
  c.data.dependent = 0  # questions of a chain, each about the answer before it; 0: no chains
  c.data.reworded = 0.5  # share of the atlas's training questions asked in random words
  c.data.feed = 'auto'  # auto (tf.data where TensorFlow is there) | tf | numpy

  c.env = ConfigDict()
  c.env.documents = ''  # searched here: files by commas, an index's folder, atlas; '': of source
  c.env.top_k = 1  # passages per search (paper: 3)
  c.env.turns = 'slack'  # budget: slack | paper (6, or 20 above 4 objectives) | a number
  c.env.slack = 3  # turns beyond one per hop; the answer takes one of them
  c.env.bm25_k1 = 1.2  # saturation of a word's frequency, ≥ 0
  c.env.bm25_b = 0.75  # length normalisation, in [0, 1]
  c.env.title_weight = 2  # times that a title's words count
  c.env.max_passage_chars = 1000  # longer passages are cut there, counted
  c.env.retriever = ''  # '': BM25 here | URLs of Search-R1 servers, by commas, asked in this order
  c.env.retriever_timeout = 10.0  # seconds of one request to them
  c.env.retriever_patience = 30.0  # seconds of a search with its retries, then it is unavailable
  c.env.reranker = ''  # cross-encoder that ranks what search finds: a folder or hf:NAME; '': none
  c.env.rerank_candidates = 20  # passages that it ranks of each search, ≥ top_k

  c.web = ConfigDict()  # domain=web; the key of an API is read from the environment alone
  c.web.api = ''  # serper | searxng | a .json that describes one; '': a small web of the documents
  c.web.url = ''  # of the API's server, where it has none of its own or another one
  c.web.key_variable = 'MEM1_SEARCH_API_KEY'  # of the environment
  c.web.record = ''  # .jsonl to write all that the web said into
  c.web.replay = ''  # .jsonl to read it from: no network
  c.web.concurrent = 8  # requests at a time
  c.web.max_per_s = 0.0  # searches a second; 0: no limit
  c.web.top_k = 3  # results of a search (paper: 10)
  c.web.snippet_chars = 200  # of a result; longer ones are cut, counted
  c.web.small_snippet_chars = 40  # of a page that a result of the small web shows
  c.web.name_chars = 80  # of a title or an address
  c.web.page_chars = 600  # of a page in view at a time

  c.shop = ConfigDict()  # domain=webshop; files are WebShop's own
  c.shop.products = ''  # items_shuffle*.json, or a product a line; '' for the embedded shop
  c.shop.instructions = ''  # items_ins_v2*.json: attributes, and instructions made of them
  c.shop.human = ''  # items_human_ins.json: instructions that people wrote; '' for none
  c.shop.reviews = ''  # reviews.json; '' for none
  c.shop.goals = 'both'  # human | synthetic | both: synthetic for products without human ones
  c.shop.combinations = 8  # of a synthetic instruction's options, at most
  c.shop.official_split = False  # of the full human goals: 500 test, 1,000 validation; else by product
  c.shop.max_results = 50  # products of a search (paper: 50)
  c.shop.page_products = 10  # on a page of results (paper: 10)
  c.shop.page_name_chars = 100  # longer names are cut, counted
  c.shop.page_values = 20  # of an option in view at a time
  c.shop.page_text_chars = 1000  # of a description in view at a time
  c.shop.shows_attributes = False  # a button lists what the reward knows of a product (paper: no)
  c.shop.nouns = ''  # spaCy model that finds a title's nouns (paper: en_core_web_sm); '': its words

  c.rollout = ConfigDict()
  c.rollout.num_slots = 32  # turns that are decoded side by side
  c.rollout.num_questions = 0  # episodes under way, some waiting for a reply; 0: 1.5 per slot
  c.rollout.refill_rows = 0  # slots (of each group of devices) that begin together; 0: an eighth
  c.rollout.decode_steps = 16  # tokens of a slot, at most, before others are refilled
  c.rollout.reply_timeout = 120.0  # seconds, after which an environment has failed its episodes
  c.rollout.question_capacity = 1536  # tokens of the longest question: 64 objectives
  c.rollout.context_capacity = 896  # tokens a turn may read: its last turn + information
  c.rollout.turn_capacity = 768  # tokens a turn may ever generate: 64 answers
  c.rollout.append_capacity = 8192  # cache of an append-only agent, tokens
  c.rollout.prefill_chunk = 64  # tokens read per step
  c.rollout.weights = 'same'  # same (as computation) | int8: matrices rounded, for rollouts alone
  c.rollout.gather_weights = True  # rollouts read a copy that is not split over mesh.fsdp
  c.rollout.max_tokens = 96  # tokens a training turn may generate, ≤ turn_capacity
  c.rollout.max_repetition = 32  # tokens that repeat the 1 to 8 before them end a turn; 0: never
  c.rollout.temperature = 1.0  # > 0 (paper: 1)

  c.memory = ConfigDict()  # of truncation, threshold and amem; the last turn is read in any case
  c.memory.budget = 256  # tokens, ≤ rollout.context_capacity: so much they read beside the question
  c.memory.notes = 3  # amem: notes in view, at most
  c.memory.encoder = ''  # amem: folder or hf:NAME of a sentence encoder; '': notes by shared words

  c.gaps = ConfigDict()  # random position gaps in training (after arXiv 2305.16843)
  c.gaps.prompt = 512  # most positions skipped between the lines of a question
  c.gaps.turn = 256  # most positions skipped before an information block
  c.gaps.probability = 0.5  # share of episodes with gaps

  c.rows = ConfigDict()
  c.rows.length = 1024  # tokens of a packed row, ≥ the longest training episode
  c.rows.layout = 'exact'  # exact | stitched (the paper's, inexact from turn 2 on)

  c.sft = ConfigDict()
  c.sft.data = 'expert'  # expert: scripted episodes | text: pre-training drills
  c.sft.steps = 1000  # updates
  c.sft.rows_per_step = 8  # packed rows of an update
  c.sft.micro_rows = 0  # rows per gradient accumulation step; 0: all of a step's
  c.sft.short_budget = 0.05  # share of episodes whose turns run out, answered on the last
  c.sft.long_budget = 0.5  # share of episodes with up to 99 turns more: larger numbers of turns left
  c.sft.hasty = 0.0  # share of episodes without options, or all questions but the first given up
  c.sft.openings = 0.0  # share of episodes shown up to their first turn, the hardest to begin with
  c.sft.drill_share = 0.3  # of the examples beside the expert's episodes
  c.sft.invented = 0.0  # share of examples set in invented worlds, where nothing is known by heart
  c.sft.world_size = 4000  # examples set in one world
  c.sft.mistakes = 0.05  # share of the expert's searches for a misspelt name: see sft.mistakes
  c.sft.garbled = 0.03  # share of the expert's turns that break off without an action: see sft.garbled
  c.sft.max_entries = 24  # of a pre-training list
  c.sft.scatter = 0.3  # share of pre-training lists with documents in between
  c.sft.log_every = 20  # steps
  c.sft.checkpoint_every = 500  # steps
  c.sft.save_dtype = 'float32'  # float32 | bfloat16: of the parameters written at the end

  c.optim = ConfigDict()
  c.optim.name = 'adamw'  # adamw | muon (matrices of the layers; the rest, adapters too, by AdamW)
  c.optim.policy_lr = 3e-4  # paper: 1e-6 at 7B
  c.optim.value_lr = 1e-3  # paper: 1e-5 at 7B
  c.optim.warmup = 5  # updates (paper: 50)
  c.optim.schedule = 'constant'  # constant | cosine (to 10 % at the last step)
  c.optim.b1 = 0.9  # decay of AdamW's first moment, in [0, 1)
  c.optim.b2 = 0.95  # of the second, in [0, 1)
  c.optim.eps = 1e-8  # beside the root of the second, > 0
  c.optim.weight_decay = 0.0  # on matrices
  c.optim.max_grad_norm = 1.0  # over all gradients; larger ones are scaled down to it
  c.optim.mu_dtype = 'float32'  # float32 | bfloat16: how the first moment is stored
  c.optim.nu_dtype = 'float32'  # float32 | bfloat16 (b2 ≤ 0.992): the second, of AdamW
  c.optim.loss_scale = 1.0  # a power of two; multiplies the loss while gradients are in float16

  c.ppo = ConfigDict()
  c.ppo.iterations = 12  # of a run: a rollout and its updates each
  c.ppo.tasks = 64  # tasks per iteration (paper: 64)
  c.ppo.samples = 1  # episodes per task
  c.ppo.baseline = 'critic'  # critic | task: less the mean reward of the task's other samples, too
  c.ppo.num_rows = 64  # rows the update program holds
  c.ppo.micro_rows = 4  # rows per gradient accumulation step
  c.ppo.minibatches = 4  # per epoch (paper: 1)
  c.ppo.epochs = 1  # times that an iteration's rows are learned from
  c.ppo.gamma = 1.0  # per token (paper: 1)
  c.ppo.lam = 1.0  # GAE (paper: 1)
  c.ppo.clip = 0.2  # of the probability ratio (paper: 0.2)
  c.ppo.tis_cap = 0.0  # ≥ 1, usually 2: recompute old log-probs, weigh by old / sampled; 0: do not
  c.ppo.value_clip = 0.2  # of the value's change
  c.ppo.trunk_value_coef = 0.0  # critic=head: share of the value gradient that reaches the actor
  c.ppo.kl_coef = 0.001  # (paper: 0.001)
  c.ppo.kl_in = 'loss'  # loss | reward
  c.ppo.kl_estimator = 'k3'  # k1 (reward only) | k2 | k3
  c.ppo.kl_controller = 'fixed'  # fixed | adaptive
  c.ppo.kl_target = 0.05  # nats per token, of the adaptive controller
  c.ppo.kl_horizon = 1000  # tokens-weighted steps, of the adaptive controller
  c.ppo.entropy_coef = 0.0  # times the entropy, added to what is maximised; ≥ 0
  c.ppo.whiten = True  # advantages over generated tokens
  c.ppo.logprob_chunk = 256  # positions whose logits exist at one time
  c.ppo.max_skipped = 3  # non-finite updates in a row before the run stops

  c.eval = ConfigDict()
  c.eval.split = 'test'  # train | validation | test
  c.eval.objectives = (1, 2, 4, 8, 16)  # questions of a task: a cell for each number
  c.eval.tasks = 100  # per number of objectives; 0: as many as ask every question once
  c.eval.num_slots = 32  # turns side by side, in evaluations of their own
  c.eval.max_tokens = 72  # tokens a turn may generate, and
  c.eval.max_tokens_per_objective = 10  # so many more for each question of the task
  c.eval.every = 4  # training iterations between evaluations; 0 for none
  c.eval.every_tasks = 64  # validation tasks of those evaluations

  c.endpoint = ConfigDict()  # `evaluate` another's model, by OpenAI's protocol (docs/endpoints.md)
  c.endpoint.url = ''  # of the server, such as http://host:8000/v1; '': parameters of init, here
  c.endpoint.model = ''  # its name there
  c.endpoint.api = 'completions'  # completions (the context as text) | chat (as messages)
  c.endpoint.key_variable = ''  # of the environment, with the key: OPENAI_API_KEY; '': no key
  c.endpoint.concurrent = 32  # episodes at a time
  c.endpoint.temperature = 0.0  # ≥ 0; 0 is greedy
  c.endpoint.top_p = 1.0  # in (0, 1]
  c.endpoint.extra = ''  # JSON of further fields of a request; null leaves one of ours out
  c.endpoint.timeout = 120.0  # seconds of a request
  c.endpoint.patience = 600.0  # seconds of a turn with its retries, then its episode is a fault
  c.endpoint.tries = 8  # requests for a turn, at most

  c.judge = ConfigDict()  # `evaluate`: answers judged by another model, too (docs/evaluation.md)
  c.judge.url = ''  # of its server, in OpenAI's protocol; '': no judge
  c.judge.model = ''  # its name there
  c.judge.api = 'chat'  # chat | completions
  c.judge.key_variable = ''  # of the environment, with the key; '': no key
  c.judge.concurrent = 16  # trajectories at a time
  c.judge.max_tokens = 16  # of a reply, which is one word; a model that reasons first needs more
  c.judge.extra = ''  # JSON of further fields of a request; null leaves one of ours out
  c.judge.timeout = 120.0  # seconds of a request
  c.judge.patience = 600.0  # seconds of a verdict with its retries, then it has failed
  c.judge.tries = 8  # requests for a verdict, at most

  c.checkpoint = ConfigDict()
  c.checkpoint.every = 4  # iterations
  c.checkpoint.keep = 2  # newest kept, beside the best

  c.log = ConfigDict()
  c.log.tensorboard = True  # writes events into the run folder, too
  c.log.wandb = ''  # project name; '' for none
  c.log.samples = 4  # trajectories written per evaluation
  return c.lock()
