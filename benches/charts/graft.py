"""Grafts boathook into the first container of every pod template of rendered manifests, with hooks as one would first write them."""
import sys, yaml
TOML='''grace-period = "60s"
stop-reserve = "10s"
[server]
token-env = "BOATHOOK_TOKEN"
[app]
ports = [%s]
[[post-start.step]]
wait = { tcp = "127.0.0.1:%s" }
timeout = "50s"
[[pre-stop.step]]
drain = { settle = "15s" }
'''
def template(d):
    s=d.get('spec') or {}
    if d.get('kind')=='Pod': return s
    if 'jobTemplate' in s: s=s['jobTemplate']['spec']
    return (s.get('template') or {}).get('spec')
n=0
out=[]
for d in yaml.safe_load_all(open(sys.argv[1])):
    if not isinstance(d,dict): continue
    t=template(d) if d.get('kind') in ('Deployment','StatefulSet','DaemonSet','Job','CronJob','Pod','ReplicaSet','ReplicationController') else None
    out.append(d)
    if not t or not t.get('containers'): continue
    n+=1
    c=t['containers'][0]
    ports=[p['containerPort'] for p in c.get('ports') or []] or [8080]
    name='boathook-%d'%n
    out.insert(0,{'apiVersion':'v1','kind':'ConfigMap','metadata':{'name':name,**({'namespace':d['metadata']['namespace']} if 'namespace' in d['metadata'] else {})},'data':{'boathook.toml':TOML%(', '.join(map(str,ports)),ports[0])}})
    if 'command' in c: c['command']=['/boathook','run','--']+c['command']
    c['env']=(c.get('env') or [])+[{'name':'BOATHOOK_TOKEN','value':'t0ken'}]
    h={'httpGet':{'path':'/shutdown','port':4665,'httpHeaders':[{'name':'Authorization','value':'Bearer t0ken'}]}}
    c['lifecycle']={'preStop':h}
    c["volumeMounts"]=(c.get("volumeMounts") or [])+[{'name':'boathook','mountPath':'/etc/boathook'}]
    t.setdefault('volumes',[])
    t['volumes']=(t['volumes'] or [])+[{'name':'boathook','configMap':{'name':name}}]
class D(yaml.SafeDumper):
    def ignore_aliases(self,d): return True
yaml.dump_all(out,sys.stdout,Dumper=D,sort_keys=False,width=1000)
print(n,file=sys.stderr)
