def machine(folder, binary):
    return {}
def write(results, to_files):
    import json
    print(json.dumps(results, indent=1))
